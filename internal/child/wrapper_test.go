//go:build linux || darwin || freebsd || openbsd

package child

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// A wrapper is a process of its own that has started a command.
type wrapper struct {
	*output
	cmd  *exec.Cmd
	mark string // in the environment of all that descend from it
	done chan struct{}
}

// wrap runs a command beneath a wrapper for a time, after a shell script that ends with exec "$@".
func wrap(t *testing.T, forHowLong, script string, args ...string) *wrapper {
	t.Helper()
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	t.Cleanup(func() { r.Close() })
	w := &wrapper{output: &output{from: r}, mark: "COORDD_TEST_MARK=" + uuid.NewString(), done: make(chan struct{})}
	w.cmd = exec.Command("/bin/sh", append([]string{"-c", script, "sh", self0(), "be-wrapper", forHowLong}, args...)...)
	w.cmd.Env = append(os.Environ(), w.mark)
	w.cmd.Stdout, w.cmd.Stderr = out, os.Stderr
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = w.cmd.Wait(); close(w.done) }()
	t.Cleanup(func() {
		w.cmd.Process.Kill()
		<-w.done
		clearUp(t, w.mark)
	})
	return w
}

func (w *wrapper) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := w.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (w *wrapper) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-w.done:
		return w.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		t.Fatal("the wrapper still runs after a minute")
		return 0
	}
}
