package client

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// To close the connection of a renewal would give up the right that is tied to it: it is waited for for longer than
// any other call.
func TestATiedRenewalIsWaitedForToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{Addr: "127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		h, err := c.begin(t.Context(), Want{Lock: "x", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		var serving sync.WaitGroup
		defer serving.Wait()
		defer there.Close()
		defer h.client.Close()
		h.conn, h.ready, h.token, h.ctx = here, here, 7, context.WithoutCancel(t.Context())
		serving.Go(func() {
			if _, err := http.ReadRequest(bufio.NewReader(there)); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * (answerWithin + longestWait))
			const answer = `{"token":7,"valid_ms":1000}`
			fmt.Fprintf(there, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer) // fails where nobody waits any more
		})
		if err := h.attempt(time.Second); err != nil {
			t.Fatal(err)
		}
	})
}
