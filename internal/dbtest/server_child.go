package dbtest

import (
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A child is a process that dies with us. A nil child is one that has ended.
type child struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended
	err  error         // how; read after gone
}

// spawn starts cmd from a thread that then does nothing but wait for it: Linux takes the end of the *thread*
// that forked for the death of the parent.
func spawn(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, gone: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.gone)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) alive() bool {
	if c == nil {
		return false
	}
	select {
	case <-c.gone:
		return false
	default:
		return true
	}
}

// end sends sig and waits. It resorts to SIGKILL and returns false if the process takes longer than patience.
func (c *child) end(sig syscall.Signal, patience time.Duration) bool {
	if !c.alive() {
		return true
	}
	c.cmd.Process.Signal(sig) // fails only if the process has ended meanwhile
	select {
	case <-c.gone:
		return true
	case <-time.After(patience):
		c.kill()
		return false
	}
}

// kill ends the process and its children, and waits for its end.
func (c *child) kill() {
	if c.alive() {
		signalFamily(c.cmd.Process, syscall.SIGKILL)
		<-c.gone
	}
}
