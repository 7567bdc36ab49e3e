package dbtest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// attributes has the child run as account, outside the reach of the terminal's Ctrl-C, which is for
// Main to handle, and get the signal quit when we die, even by SIGKILL.
func attributes(account *syscall.Credential, quit syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true, Pdeathsig: quit}
}

// killFamily kills a process and its children: PostgreSQL's put themselves in groups of their own, and a busy one
// goes on without its parent until its query is done. The parent is frozen first, so that it has no more children.
func killFamily(parent *os.Process) {
	parent.Signal(syscall.SIGSTOP)
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", parent.Pid))
	for _, field := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(field); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	parent.Kill()
}
