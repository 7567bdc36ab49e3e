package dbtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// StartPostgres starts a PostgreSQL server of the test's own, which it may stop, kill and start again, from
// the programs installed on this machine. It ends with the test.
func StartPostgres(tb testing.TB, extra Extra) *Server {
	tb.Helper()
	return startServer(tb, &postgresProduct, extra)
}

// StartMySQL is StartPostgres for MariaDB, or for MySQL where there is no MariaDB.
func StartMySQL(tb testing.TB, extra Extra) *Server {
	tb.Helper()
	return startServer(tb, &mysqlProduct, extra)
}

// Extra is what a test adds to the start of its own server. Zero adds nothing.
type Extra struct {
	Env  []string // NAME=value; the server has no other environment but PATH
	Args []string // come last on the command line, so they win

	password string // of the administrator; empty makes one up
}

// A Server is a database server that is run from the programs installed on this machine, with its own
// data directory and port. Its DSN stays the same over all its starts. It dies with the test binary,
// however that ends. Its methods may be called from several goroutines.
type Server struct {
	product  *product
	programs programs
	extra    Extra
	account  *syscall.Credential // nil: our own
	dir      string
	lock     *os.File // says that dir is in use
	password string

	mu     sync.Mutex
	layout layout
	child  *child // nil until the first start
	closed bool
}

// layout is where a server keeps what is its own.
type layout struct {
	data   string // directory
	secret string // file that makes the password known to the server
	port   int
}

func (l layout) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.port)) }

// programs are the executables of a product that were found on this machine.
type programs interface {
	// secret is the content of layout.secret.
	secret(password string) string
	// initialize is the command that fills the data directory.
	initialize(layout) []string
	// serve is the command that runs the server.
	serve(layout) []string
	// signals ask the server to end in order, and at once without leaving anything behind.
	signals() (stop, quit syscall.Signal)
	// tidy removes what a killed server left outside of its directory.
	tidy(layout) error
}

const (
	stopWithin = 30 * time.Second
	quitWithin = 10 * time.Second
	logLines   = 30 // of the server's log are quoted in an error
)

// errPassing is why a server did not start that may start next time.
var errPassing = errors.New("something else is in its way")

func startServer(tb testing.TB, p *product, extra Extra) *Server {
	tb.Helper()
	s, err := newServer(p, extra)
	stopWithout(tb, err)
	tb.Cleanup(func() {
		if err := s.close(); err != nil {
			tb.Errorf("dbtest: %v", err)
		}
	})
	if err := s.Start(); err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	return s
}

// DSN is the administrator's URL, in the form that Postgres and MySQL return.
func (s *Server) DSN() string { return s.product.adminURL(s.password, s.Address()) }

// Address is the host:port of the DSN.
func (s *Server) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.layout.address()
}

// Start returns when the server answers. The error quotes the end of its log.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errOver
	}
	if s.child.alive() {
		return fmt.Errorf("start %s: it is running", s.product.name)
	}
	ctx, cancel := context.WithTimeout(thisRun.context(), readyWithin)
	defer cancel()
	for {
		if s.child == nil {
			port, err := freePort() // whoever takes it before the server does makes us choose another one
			if err != nil {
				return err
			}
			s.layout.port = port
		}
		child, err := s.launch(ctx)
		if err == nil {
			s.child = child
			return nil
		}
		if !errors.Is(err, errPassing) || ctx.Err() != nil {
			return fmt.Errorf("start %s: %w", s.product.name, err)
		}
	}
}

// launch makes one attempt to start the server.
func (s *Server) launch(ctx context.Context) (*child, error) {
	logged := s.logSize()
	command := append(append(s.programs.serve(s.layout), s.product.tuning...), s.extra.Args...)
	child, err := s.spawn(thisRun.context(), command, s.extra.Env)
	if err != nil {
		return nil, err
	}
	url := s.product.adminURL(s.password, s.layout.address())
	err = awaitReady(ctx, func(ctx context.Context) error {
		if !child.alive() {
			return errEnded
		}
		return ping(ctx, url)
	})
	if err == nil {
		return child, nil
	}
	child.kill()
	log := s.logFrom(logged)
	if strings.Contains(log, "ddress already in use") || strings.Contains(log, "is still in use") {
		err = fmt.Errorf("%w: %w", errPassing, err) // the port is taken, or a backend outlived its killed postmaster
	}
	return nil, fmt.Errorf("%w; the end of its log:\n%s", err, log)
}

// spawn starts a command of the server's own, with its output in the log. It ends at the latest with ctx.
func (s *Server) spawn(ctx context.Context, command, env []string) (*child, error) {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	_, quit := s.programs.signals()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}, env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes(s.account, quit)
	cmd.Cancel = func() error { return cmd.Process.Signal(quit) }
	cmd.WaitDelay = quitWithin
	return spawn(cmd)
}

// Stop ends the server in order: clients are cut off, what they committed stays.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	stop, _ := s.programs.signals()
	if s.child.end(stop, stopWithin) {
		return nil
	}
	return fmt.Errorf("stop %s: it had not ended after %v, so it was killed; the end of its log:\n%s",
		s.product.name, stopWithin, s.logFrom(0))
}

// Kill ends the server and every process of it with SIGKILL, as a crash would. What was committed stays.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child.kill()
}

// Pause freezes the server and every process of it where they are, until Resume. Nobody is told: connections stay, and
// hear nothing.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child.alive() {
		signalFamily(s.child.cmd.Process, sig)
	}
}

// close ends the server for good and removes its directory.
func (s *Server) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_, quit := s.programs.signals()
	s.child.end(quit, quitWithin)
	if s.dir == "" {
		return nil
	}
	err := errors.Join(s.programs.tidy(s.layout), removeDir(s.dir))
	s.lock.Close() // if it is nil, the error does not matter
	return err
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "log") }

func (s *Server) logSize() int {
	info, err := os.Stat(s.logPath())
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// logFrom is the end of what the server has logged since its log had the given size.
func (s *Server) logFrom(size int) string {
	log, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return lastLines(string(log[min(size, len(log)):]))
}

func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}
