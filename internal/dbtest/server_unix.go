//go:build unix && !linux

package dbtest

import (
	"os"
	"syscall"
)

// attributes has the child run as account, outside the reach of the terminal's Ctrl-C, which is for
// Main to handle. Only Linux can also tie its life to ours.
func attributes(account *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true}
}

// signalFamily signals a process. Its children are on their own: PostgreSQL's end soon after it, and run on while it
// is stopped.
func signalFamily(parent *os.Process, sig syscall.Signal) {
	parent.Signal(sig)
}
