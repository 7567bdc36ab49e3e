//go:build linux || darwin || freebsd || openbsd

package child

import (
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coordd/coordd/internal/clock"
)

// supervisorName is what this program is called when it supervises: its argument 0.
const supervisorName = "coordd-child"

// The files of a supervisor beside the command's own three.
const (
	ordersFile  = 3 + iota // a pipe from the wrapper; closed: the wrapper is gone
	reportsFile            // a pipe to the wrapper
	keptFile               // Command.Keep, if there is one
)

// An order is what the wrapper says. Each has one field.
type order struct {
	Begin  *begin         `json:"begin,omitempty"` // the first
	Until  time.Duration  `json:"until,omitempty"`
	Signal syscall.Signal `json:"signal,omitempty"`
	Stop   bool           `json:"stop,omitempty"`
}

type begin struct {
	Grace      time.Duration `json:"grace"`
	Notice     time.Duration `json:"notice"`
	Until      time.Duration `json:"until"`
	Foreground bool          `json:"foreground"`
}

// tellAt is when SIGTERM is told for want of time.
func (b begin) tellAt() time.Duration {
	if b.Until == 0 {
		return never
	}
	return b.Until - b.Notice - lead
}

// A report is what the supervisor says.
type report struct {
	Pid    int     `json:"pid,omitempty"` // the command runs
	Ending *ending `json:"ending,omitempty"`
}

// An ending is the last report: nothing is left.
type ending struct {
	Errno   syscall.Errno      `json:"errno,omitempty"` // it was not run
	Status  syscall.WaitStatus `json:"status"`
	Stopped bool               `json:"stopped"`
}

func (e ending) result() Result {
	if e.Status.Signaled() {
		return Result{Signal: e.Status.Signal(), Stopped: e.Stopped}
	}
	return Result{Code: e.Status.ExitStatus(), Stopped: e.Stopped}
}

// Main makes this process the supervisor of a command and does not return, if [Start] has started
// it for that; else it does nothing. It is the first thing that a main does whose program calls
// Start, and the first of a TestMain.
func Main() {
	if os.Args[0] != supervisorName || len(os.Args) < 3 {
		return
	}
	// Linux takes the end of the thread that forked for the death of the parent.
	runtime.LockOSThread()
	syscall.CloseOnExec(ordersFile)
	syscall.CloseOnExec(reportsFile)
	syscall.CloseOnExec(keptFile) // which is all that is done with it: it closes with this process
	if err := adopt(); err != nil {
		os.Exit(1) // the wrapper has done the same with success
	}
	rename()
	heedNothing()
	s := supervisor{
		orders:  listen(os.NewFile(ordersFile, "orders")),
		reports: json.NewEncoder(os.NewFile(reportsFile, "reports")),
	}
	s.supervise(os.Args[1], os.Args[2:])
	os.Exit(0)
}

// heedNothing keeps those signals from ending the supervisor that are sent to everybody: to all
// processes of a unit, a container or a program's name. The wrapper decides.
func heedNothing() {
	signal.Notify(make(chan os.Signal, 1), heeded(
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)...)
}

// heeded leaves out those signals that this process was started to ignore (nohup): to catch them
// would have the command not ignore them. Go itself keeps only SIGHUP and SIGINT ignored.
func heeded(signals ...syscall.Signal) (some []os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			some = append(some, s)
		}
	}
	return some
}

// Forwarded are the signals that a wrapper should pass on with [Process.Signal].
func Forwarded() []os.Signal {
	return heeded(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
}

// listen reads orders until the wrapper is gone, and closes the channel then.
func listen(from *os.File) <-chan order {
	orders := make(chan order)
	go func() {
		defer close(orders)
		for in := json.NewDecoder(from); ; {
			var o order
			if in.Decode(&o) != nil {
				return
			}
			orders <- o
		}
	}()
	return orders
}

// A supervisor is the parent of a command. It acts alone.
type supervisor struct {
	orders  <-chan order
	reports *json.Encoder

	begin
	pid    int // of the command and its group
	ended  bool
	status syscall.WaitStatus

	toldAt  time.Duration // when SIGTERM was first told; 0: it was not
	stopped bool          // it was, before the command had ended
	cleared bool          // what the ended command has left behind was told too
}

func (s *supervisor) tell(r report) { _ = s.reports.Encode(r) } // a wrapper that is gone needs none

// supervise runs the command, if there is somebody who wants it, until nothing of it is left.
func (s *supervisor) supervise(path string, args []string) {
	if first := <-s.orders; first.Begin != nil {
		s.begin = *first.Begin
		end := s.run(path, args)
		s.tell(report{Ending: &end})
	}
}

func (s *supervisor) run(path string, args []string) ending {
	if clock.SinceBoot() >= s.tellAt() {
		return ending{Stopped: true}
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	var err error
	s.pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: attributes(s.Foreground),
	})
	if err != nil {
		errno := syscall.EIO
		errors.As(err, &errno)
		return ending{Errno: errno}
	}
	s.tell(report{Pid: s.pid})
	for s.reap() {
		now := clock.SinceBoot()
		timer := time.NewTimer(nap(now, s.act(now)))
		select {
		case o, ok := <-s.orders:
			s.obey(o, ok)
		case <-children:
		case <-timer.C:
		}
		timer.Stop()
	}
	return ending{Status: s.status, Stopped: s.stopped}
}

func (s *supervisor) obey(o order, ok bool) {
	switch {
	case !ok:
		s.orders = nil
		s.stop()
	case o.Stop:
		s.stop()
	case o.Until != 0:
		s.Until = o.Until
	case o.Signal == syscall.SIGUSR1 || o.Signal == syscall.SIGUSR2:
		s.signal(s.pid, o.Signal)
	case o.Signal != 0:
		s.signal(-s.pid, o.Signal)
		s.signal(-s.pid, syscall.SIGCONT) // one that is stopped would never hear of it
	}
}

// signal tells the command, or its group, for as long as it is there: nobody else has its number
// before it was reaped.
func (s *supervisor) signal(whom int, sig syscall.Signal) {
	if !s.ended {
		_ = syscall.Kill(whom, sig) // fails for what may not be signalled; guard tells of it
	}
}

// killAt is when everything is killed that is left.
func (s *supervisor) killAt() time.Duration {
	at := never
	if s.toldAt != 0 {
		at = later(s.toldAt, s.Grace)
	}
	if s.Until != 0 {
		at = min(at, s.Until-lead)
	}
	return at
}

// stop tells the command to end, and wakes it if it sleeps.
func (s *supervisor) stop() {
	if s.toldAt != 0 {
		return
	}
	s.toldAt, s.stopped = clock.SinceBoot(), !s.ended
	s.signal(-s.pid, syscall.SIGTERM)
	s.signal(-s.pid, syscall.SIGCONT)
}

// act does what is due, and says when to act again.
func (s *supervisor) act(now time.Duration) (again time.Duration) {
	if now >= s.tellAt() {
		s.stop()
	}
	if s.ended && !s.cleared {
		s.cleared = true
		if s.toldAt == 0 {
			s.toldAt = now
		}
		signalBelow(os.Getpid(), s.pid, syscall.SIGTERM)
		signalBelow(os.Getpid(), s.pid, syscall.SIGCONT)
	}
	if now >= s.killAt() {
		s.signal(-s.pid, syscall.SIGKILL) // most are of the group, and need not be looked for
		killBelow(os.Getpid(), s.pid)
		return now + tick // or when the next one has died
	}
	if s.toldAt != 0 {
		return s.killAt()
	}
	return min(s.tellAt(), s.killAt())
}

// reap takes note of who has ended, and says whether anybody is left.
func (s *supervisor) reap() (left bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG|syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD: no child, and no orphan that would be one
			return groupLeft(s.pid)
		case pid == 0:
			return true
		case pid == s.pid && status.Stopped():
			if status.StopSignal() == syscall.SIGTSTP { // the terminal's Ctrl-Z: its right would run out
				s.signal(-s.pid, syscall.SIGCONT)
			}
		case pid == s.pid:
			s.ended, s.status = true, status
		}
	}
}
