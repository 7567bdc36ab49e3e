package child

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// self is this program, also where its file was replaced by a newer one.
func self() (string, error) { return "/proc/self/exe", nil }

// adopt has orphans below this process become its children.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// rename has ps and killall tell a supervisor from its wrapper.
func rename() { _ = os.WriteFile("/proc/self/comm", []byte(supervisorName), 0) } // for people

// attributes are those of the command.
func attributes(foreground bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Foreground: foreground, Ctty: 0, Pdeathsig: syscall.SIGKILL}
}

// groupLeft says whether anybody is left of a group none of whose members is below this process.
func groupLeft(int) bool { return false }

// A process as /proc has it.
type process struct {
	pid, parent, group int
	dead               bool // it is there only until its parent asks
}

// processes reads who there is. That is no snapshot: whoever loses its parent meanwhile may be
// overlooked below that of old and found below the new one with the next reading.
func processes() (all []process) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1) // what could be read counts
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid); ok {
			all = append(all, p)
		}
	}
	return all
}

// readProcess reads one, by the fields of proc_pid_stat(5) that follow its name, which ends with
// the last bracket and may contain anything. Its state is that of its first thread, which may
// have ended while others run.
func readProcess(pid int) (process, bool) {
	const state, parent, group, threads = 3, 4, 5, 20
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if err != nil || len(fields) <= threads-state {
		return process{}, false
	}
	number := func(field int) (n int) {
		if err == nil {
			n, err = strconv.Atoi(fields[field-state])
		}
		return n
	}
	p := process{pid: pid, parent: number(parent), group: number(group)}
	p.dead = (fields[0] == "Z" || fields[0] == "X") && number(threads) <= 1
	return p, err == nil
}

// below is who lives below some processes.
func below(all []process, roots ...int) (found []process) {
	children := map[int][]process{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	seen := map[int]bool{} // a number that was given anew meanwhile may make a circle
	for len(roots) > 0 {
		root := roots[0]
		roots = roots[1:]
		if seen[root] {
			continue
		}
		seen[root] = true
		for _, p := range children[root] {
			roots = append(roots, p.pid)
			if !p.dead {
				found = append(found, p)
			}
		}
	}
	return found
}

// signalBelow signals who lives below a process: those in the command's group at one instant, so
// that none of them is missed that is just being forked. It says who that was.
func signalBelow(root, group int, sig syscall.Signal) (found []int) {
	return signalAll(below(processes(), root), group, sig)
}

func signalAll(some []process, group int, sig syscall.Signal) (found []int) {
	grouped := false
	for _, p := range some {
		found = append(found, p.pid)
		if p.group == group && group > 0 {
			grouped = true
			continue
		}
		_ = syscall.Kill(p.pid, sig) // it may have ended
	}
	if grouped {
		_ = syscall.Kill(-group, sig)
	}
	return found
}

func killBelow(root, group int) (found []int) { return signalBelow(root, group, syscall.SIGKILL) }

// killLeft kills what a supervisor has left behind that was killed, and says what it has found: it has
// become this process's, beside supervisors that live, and what was below it before is below it now.
func killLeft(group int) (found []int) {
	all := slices.DeleteFunc(processes(), func(p process) bool { return p.parent == os.Getpid() && supervises(p.pid) })
	return signalAll(below(all, os.Getpid()), group, syscall.SIGKILL)
}

// supervises says whether a process is a supervisor.
func supervises(pid int) bool {
	args, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	name, _, _ := strings.Cut(string(args), "\x00")
	return err == nil && name == supervisorName
}
