// Package child runs a command that may run only while this process has a right to it: beneath
// `coordd lock NAME -- CMD` and `coordd elect NAME -- CMD`.
//
// # What it promises
//
// No process of the command runs past the instant that the wrapper (the process that calls [Start])
// named last, by [Command] or [Process.Extend], while one of two processes works: the wrapper, or
// the supervisor that it starts. The command is told with SIGTERM, some time before, and killed a
// tenth of a second before. So, on Linux:
//
//	wrapper killed        the supervisor sees a pipe close, and stops the command
//	wrapper frozen        the supervisor stops the command by the instant that it knows
//	supervisor killed     the kernel kills the command (parent-death signal), the wrapper the rest
//	supervisor frozen     the wrapper kills the command, by the same instant, and the supervisor
//	command frozen        SIGKILL needs nobody's help
//
// "Of the command" is everything that descends from it: also what has left its process group or
// its session, and what has lost its parents. The supervisor is a subreaper (prctl(2)): orphans
// become its children, so it finds them in /proc, and knows by having no child that none is left.
// The wrapper is one too, and takes in what a killed supervisor leaves behind.
//
// The command has no shell and a process group of its own. When it has ended, what it has left
// behind is told SIGTERM, and killed after the grace; Wait returns when nothing is left. On a
// terminal that is its standard input and output the command's group is in the foreground; it is
// not suspended by it (Ctrl-Z), as its right would run out meanwhile.
//
// # What it does not promise
//
// When both processes are frozen and the command is not, or both are killed at once (the command
// itself is killed then, and what it has started runs on), nobody is left who could act. When the
// whole machine was suspended, or all of it frozen (a container that is paused), past the instant,
// the command may run on for a moment when it thaws, until one of the two runs too. A process that
// may not be signalled (a setuid program, as sudo is) or sleeps in the kernel outlives SIGKILL: it
// is told of by [Result]. A program that forks faster than /proc can be read, outside of the
// command's group, may outrun it; what another daemon starts on its behalf (at, systemd-run, docker) is not
// found. Guard by the token what must not be written then. On other systems than Linux only the
// command's process group counts, and the death of a supervisor is seen by the wrapper alone.
//
// # How
//
// The supervisor is this program again, under another name: main (and TestMain) call [Main] first.
// It costs a process of some megabytes and, of each of the two, twenty wake-ups a second, since timers do
// not count the time for which a machine was suspended. Instants are [clock.SinceBoot]'s, which all processes of a machine
// share. The process that calls Start should start no other children meanwhile: if a supervisor is
// killed, those are not to be told from what it has left behind, unless they are supervisors too.
package child

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// Command says what to run.
type Command struct {
	Args   []string // the first is looked up in PATH, as [exec.LookPath] does
	Env    []string // nil: this process's
	Dir    string   // empty: this process's
	Stdin  *os.File // nil: /dev/null, as for the next two
	Stdout *os.File
	Stderr *os.File

	// Keep is a connection that the supervisor keeps open, beside this process, until nothing of the command is left. So
	// what is tied to it lasts for as long as the command does, even if this process is killed. Nil: none.
	Keep syscall.Conn

	// Grace is how long it has from SIGTERM to SIGKILL, if Until leaves it so long.
	Grace time.Duration

	// Notice is how long before Until it is told SIGTERM. 0 means Grace.
	Notice time.Duration

	// Until is the instant, by [clock.SinceBoot], before which all of it must have ended;
	// 0: there is none until Extend names one. If it is too near, nothing is run.
	Until time.Duration
}

// Why a command was not run.
var (
	ErrNotFound      = errors.New("no such command")
	ErrCannotExecute = errors.New("the command cannot be executed")
)

// ErrAlive says that processes of a command are alive though they were killed, a second after that and after its time had
// come.
var ErrAlive = errors.New("processes of the command do not die by SIGKILL")

// Result is how a command has ended.
type Result struct {
	Code    int            // that it exited with
	Signal  syscall.Signal // that ended it; 0: it exited
	Stopped bool           // it was told to stop: by Stop, by the context, or because its time came near
	Err     error          // something went wrong with running it; how it ended is not known then
}

// ExitCode is the code by which a shell would tell of it: the command's own, or 128 and the
// signal.
func (r Result) ExitCode() int {
	if r.Signal != 0 {
		return 128 + int(r.Signal)
	}
	return r.Code
}

const (
	// lead is how long before Until everything is killed.
	lead = 100 * time.Millisecond

	// tick is the longest that an instant is slept for: a timer does not count the time
	// for which the machine was suspended.
	tick = 50 * time.Millisecond
)

// never is an instant that does not come.
const never = time.Duration(1<<63 - 1)
