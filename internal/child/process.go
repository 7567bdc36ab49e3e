//go:build linux || darwin || freebsd || openbsd

package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coordd/coordd/internal/clock"
)

// Process is a command that runs. It is safe for concurrent use.
type Process struct {
	supervisor *exec.Cmd
	grace      time.Duration
	restore    func() // gives the terminal back
	loops      sync.WaitGroup
	begun      chan struct{} // closed when the command runs, or it is over
	reaped     chan struct{} // closed when the supervisor is: its number may be another's from then on
	over       chan struct{}
	result     Result // read after over
	refused    error  // why it was not run; read after over

	mu       sync.Mutex
	orders   *os.File
	encoder  *json.Encoder
	reports  *os.File
	pid      int           // of the command; 0: it does not run yet
	until    time.Duration // the instant that was named last; 0: none
	stopAt   time.Duration // when Stop was called; 0: never
	killing  bool          // the wrapper has begun to kill, as the supervisor has not
	finished bool
}

// Start runs a command until it ends, its time comes, or ctx ends, which is [Process.Stop]. It
// fails with [ErrNotFound] and [ErrCannotExecute]; if there was no time left to run it, it does
// not fail, and the Result says Stopped. Call Wait.
func Start(ctx context.Context, cmd Command) (*Process, error) {
	path, err := LookPath(cmd)
	if err != nil {
		return nil, err
	}
	p := &Process{grace: cmd.Grace, until: cmd.Until, restore: func() {}, begun: make(chan struct{}), reaped: make(chan struct{}), over: make(chan struct{})}
	orders := cmd.begin()
	if clock.SinceBoot() >= orders.tellAt() {
		p.finish(Result{Stopped: true})
		return p, nil
	}
	if err := adopt(); err != nil {
		return nil, fmt.Errorf("run %s: become the reaper of what its supervisor may leave behind: %w", cmd.Args[0], err)
	}
	if err := p.launch(path, cmd); err != nil {
		return nil, fmt.Errorf("run %s: start its supervisor: %w", cmd.Args[0], err)
	}
	orders.Foreground, p.restore = terminal(cmd)
	p.send(order{Begin: &orders})
	p.loops.Go(p.follow)
	p.loops.Go(func() { p.guard(ctx) })
	<-p.begun
	if p.isOver() && p.refused != nil {
		p.Wait()
		return nil, fmt.Errorf("run %s: %w", cmd.Args[0], p.refused)
	}
	return p, nil
}

// LookPath finds the file of a command. It fails with [ErrNotFound] and [ErrCannotExecute].
func LookPath(cmd Command) (string, error) {
	if len(cmd.Args) == 0 || cmd.Args[0] == "" {
		return "", fmt.Errorf("%w: it has no name", ErrNotFound)
	}
	path, err := exec.LookPath(cmd.Args[0])
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%w: %q is not there, or not in PATH", ErrNotFound, cmd.Args[0])
	}
	return "", fmt.Errorf("%w: %w", ErrCannotExecute, err)
}

// begin is the first order.
func (cmd Command) begin() begin {
	b := begin{Grace: cmd.Grace, Notice: cmd.Notice, Until: cmd.Until}
	if b.Notice == 0 {
		b.Notice = b.Grace
	}
	return b
}

// launch starts the supervisor.
func (p *Process) launch(path string, cmd Command) error {
	self, err := self()
	if err != nil {
		return err
	}
	orders, err := pipe()
	if err != nil {
		return err
	}
	defer orders.r.Close()
	reports, err := pipe()
	if err != nil {
		orders.w.Close()
		return err
	}
	defer reports.w.Close()

	files := []*os.File{orders.r, reports.w}
	if cmd.Keep != nil {
		kept, err := duplicate(cmd.Keep)
		if err != nil {
			orders.w.Close()
			reports.r.Close()
			return err
		}
		defer kept.Close()
		files = append(files, kept)
	}
	p.supervisor = &exec.Cmd{
		Path: self, Args: append([]string{supervisorName, path}, cmd.Args...), Env: cmd.Env, Dir: cmd.Dir,
		ExtraFiles:  files,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, // the terminal's signals are not for it
	}
	if cmd.Stdin != nil { // a nil file is no nil reader
		p.supervisor.Stdin = cmd.Stdin
	}
	if cmd.Stdout != nil {
		p.supervisor.Stdout = cmd.Stdout
	}
	if cmd.Stderr != nil {
		p.supervisor.Stderr = cmd.Stderr
	}
	p.orders, p.reports, p.encoder = orders.w, reports.r, json.NewEncoder(orders.w)
	if err := p.supervisor.Start(); err != nil {
		p.orders.Close()
		p.reports.Close()
		return err
	}
	return nil
}

type ends struct{ r, w *os.File }

func pipe() (ends, error) {
	r, w, err := os.Pipe()
	return ends{r, w}, err
}

// duplicate is another descriptor of a connection, which ends when all are closed. That of [net.TCPConn.File] would make
// reads of all of them block.
func duplicate(conn syscall.Conn) (*os.File, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	failed := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(failed, err); err != nil {
		return nil, fmt.Errorf("duplicate its connection: %w", err)
	}
	return os.NewFile(uintptr(fd), "kept"), nil
}

// Extend says that the command may run until an instant by [clock.SinceBoot]. It is told SIGTERM
// before that by Notice at the latest, and what is left of it is killed before that.
func (p *Process) Extend(until time.Duration) {
	p.mu.Lock()
	news := (until - p.until).Abs() > tick/2 // not each reading of the same
	if news {
		p.until = until
	}
	p.mu.Unlock()
	if news {
		p.send(order{Until: until})
	}
}

// Stop tells the command SIGTERM now, and kills what is left of it after the grace. Further calls do
// nothing.
func (p *Process) Stop() {
	p.mu.Lock()
	again := p.stopAt != 0
	if !again {
		p.stopAt = clock.SinceBoot()
	}
	p.mu.Unlock()
	if !again {
		p.send(order{Stop: true})
	}
}

// Signal passes a signal on: to the command's process group, as a terminal would; SIGUSR1 and
// SIGUSR2, which end programs that do not know them, to the command alone.
func (p *Process) Signal(s os.Signal) {
	if s, ok := s.(syscall.Signal); ok {
		p.send(order{Signal: s})
	}
}

// Wait waits until nothing of the command is left, and tells how it has ended.
func (p *Process) Wait() Result {
	<-p.over
	p.loops.Wait()
	p.restore()
	return p.result
}

// Pid is the command's, and that of its process group; 0: it was not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// writeWithin is how long an order may take. Pipes hold hundreds, so a supervisor that does not
// read is noticed late; nothing depends on it, as the wrapper knows the same instants.
const writeWithin = 50 * time.Millisecond

func (p *Process) send(o order) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return
	}
	_ = p.orders.SetWriteDeadline(time.Now().Add(writeWithin))
	_ = p.encoder.Encode(o) // where nobody hears it, guard acts
}

// follow reads what the supervisor reports until that ends, and clears up after it.
func (p *Process) follow() {
	var last *ending
	in := json.NewDecoder(p.reports)
	for {
		var r report
		if in.Decode(&r) != nil {
			break
		}
		if r.Pid != 0 {
			p.begin(r.Pid)
		}
		last = r.Ending
	}
	if p.isOver() { // given up: the supervisor may live for as long as what it cannot kill
		return
	}
	_ = p.supervisor.Wait() // its own exit code says nothing
	close(p.reaped)
	switch {
	case last != nil && last.Errno != 0:
		p.refused = cannot(last.Errno)
		p.finish(Result{})
	case last != nil:
		p.finish(last.result())
	default:
		p.finish(p.sweep())
	}
}

// sweep kills what a supervisor has left behind that was killed, until nothing is left.
func (p *Process) sweep() Result {
	var killing since
	for clean, pause := 0, time.Millisecond; clean < 2; { // one reading of /proc may miss what changes its parent meanwhile
		killing.round(clock.SinceBoot())
		alive := killLeft(p.Pid())
		if clean++; len(alive) == 0 {
			continue
		}
		if p.late(killing) {
			return undead(alive)
		}
		time.Sleep(pause)
		clean, pause = 0, min(2*pause, tick)
	}
	return p.bereft()
}

func (p *Process) begin(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return
	}
	p.pid = pid
	close(p.begun)
}

// cannot is the error of a command that the kernel did not run.
func cannot(errno syscall.Errno) error {
	switch errno {
	case syscall.ENOENT:
		return fmt.Errorf("%w: it, or the interpreter that it names, is not there", ErrNotFound)
	case syscall.EAGAIN, syscall.ENOMEM:
		return errno
	}
	return fmt.Errorf("%w: %w", ErrCannotExecute, errno)
}

// bereft is the result where the supervisor has told none.
func (p *Process) bereft() Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killing {
		return Result{Signal: syscall.SIGKILL, Stopped: true}
	}
	return Result{Err: errors.New("its supervisor was killed, and so was the command")}
}

func (p *Process) finish(r Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return
	}
	p.finished, p.result = true, r
	close(p.over) // first: who is woken by the next three asks whether it is over
	if p.pid == 0 {
		close(p.begun)
	}
	p.orders.Close()
	p.reports.Close()
}

func (p *Process) isOver() bool { return closed(p.over) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
