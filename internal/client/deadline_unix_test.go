//go:build unix

package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/internal/client"
)

// A connection sees sometimes before the context does that its time is over.
func TestADeadlineIsTheCallersWhoeverSeesItFirst(t *testing.T) {
	t.Parallel()
	l, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(l)
	if err := errors.Join(syscall.Bind(l, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(l, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprint("127.0.0.1:", name.(*syscall.SockaddrInet4).Port)
	waiting, err := net.Dial("tcp", address) // all for which there is room
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	c := connect(t, client.Config{Addr: address})
	var asking sync.WaitGroup
	for range 200 {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := c.Hold(ctx, client.Want{Lock: "x"}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
			}
		})
	}
	asking.Wait()
}
