//go:build darwin || freebsd || openbsd

package child

import (
	"os"
	"syscall"
)

// self is this program.
func self() (string, error) { return os.Executable() }

// Only Linux gives orphans to one of their ancestors.
func adopt() error { return nil }

func rename() {}

// attributes are those of the command.
func attributes(foreground bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Foreground: foreground, Ctty: 0}
}

// groupLeft says whether anybody is left of the command's group.
func groupLeft(group int) bool {
	return syscall.Kill(-group, 0) == nil
}

// signalBelow signals the command's group, and says whether anybody was there.
func signalBelow(_, group int, sig syscall.Signal) (found []int) {
	if group == 0 || syscall.Kill(-group, sig) != nil {
		return nil
	}
	return []int{group}
}

func killBelow(root, group int) (found []int) { return signalBelow(root, group, syscall.SIGKILL) }

// killLeft kills what a supervisor has left behind that was killed, and says whether anybody was there.
func killLeft(group int) (found []int) { return killBelow(0, group) }
