//go:build linux || darwin || freebsd || openbsd

package child

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminal says whether the command is to have the terminal: if it is the command's standard input
// and output, and this process is in its foreground, and so not one of several in a pipeline.
// Restore takes it back.
func terminal(cmd Command) (foreground bool, restore func()) {
	mine := unix.Getpgrp()
	if !inForeground(cmd.Stdin, mine) || !inForeground(cmd.Stdout, mine) {
		return false, func() {}
	}
	return true, func() {
		signal.Ignore(syscall.SIGTTOU) // who is in the background may not do this
		defer signal.Reset(syscall.SIGTTOU)
		_ = unix.IoctlSetPointerInt(int(cmd.Stdin.Fd()), unix.TIOCSPGRP, mine) // fails if the terminal has gone
	}
}

func inForeground(f *os.File, group int) bool {
	if f == nil {
		return false
	}
	owner, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && owner == group
}
