package dbtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// attributes has the child run as account, outside the reach of the terminal's Ctrl-C, which is for
// Main to handle, and get the signal quit when we die, even by SIGKILL.
func attributes(account *syscall.Credential, quit syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: account, Setpgid: true, Pdeathsig: quit}
}

// signalFamily sends sig to a process and its children: PostgreSQL's put themselves in groups of their own, and a busy one
// goes on without its parent until its query is done. The parent is frozen first, so that it has no more children. When
// it returns, what was sent SIGSTOP stands still: the kernel stops one thread after the other.
func signalFamily(parent *os.Process, sig syscall.Signal) {
	parent.Signal(syscall.SIGSTOP)
	awaitStop(parent.Pid)
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", parent.Pid))
	for _, field := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(field); err == nil {
			syscall.Kill(pid, sig)
			if sig == syscall.SIGSTOP {
				awaitStop(pid)
			}
		}
	}
	parent.Signal(sig)
}

// awaitStop waits until no thread of a process runs any more; a second is ample.
func awaitStop(pid int) {
	for deadline := time.Now().Add(time.Second); running(pid) && time.Now().Before(deadline); {
		time.Sleep(100 * time.Microsecond)
	}
}

func running(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, thread := range threads {
		stat, _ := os.ReadFile(thread) // gone meanwhile: nothing
		_, state, found := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
		if found && !bytes.ContainsAny(state[:1], "TtZX") {
			return true
		}
	}
	return false
}
