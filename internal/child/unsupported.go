//go:build !linux && !darwin && !freebsd && !openbsd

package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// Process is a command that runs.
type Process struct{}

// Start fails with [errors.ErrUnsupported].
func Start(context.Context, Command) (*Process, error) {
	return nil, fmt.Errorf("run a command under a right on %s: %w: hold the right in the program itself", runtime.GOOS, errors.ErrUnsupported)
}

// LookPath fails with [ErrNotFound] where there is no such command.
func LookPath(cmd Command) (string, error) {
	if len(cmd.Args) == 0 {
		return "", ErrNotFound
	}
	path, err := exec.LookPath(cmd.Args[0])
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return path, nil
}

// Main does nothing here.
func Main() {}

// Forwarded are the signals that a wrapper should pass on.
func Forwarded() []os.Signal { return []os.Signal{os.Interrupt} }

// Extend does nothing here, as the next four.
func (*Process) Extend(time.Duration) {}

// Stop does nothing here.
func (*Process) Stop() {}

// Signal does nothing here.
func (*Process) Signal(os.Signal) {}

// Pid is 0.
func (*Process) Pid() int { return 0 }

// Wait returns at once.
func (*Process) Wait() Result { return Result{} }
