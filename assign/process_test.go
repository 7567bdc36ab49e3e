package assign

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/dsn"
	"github.com/coordd/coordd/pglisten"
)

// The test binary is a member that serves a group, a process of its own, if this describes it in
// its environment.
const beMember = "COORDD_TEST_BE_MEMBER"

// memberSpec describes such a process.
type memberSpec struct {
	DSN, Name string
	TTL       time.Duration
	Work      string // what it does with its jobs, one of newLabour
	Listens   bool
	Life      string // the file in which it leaves signs of life
	Verbose   bool   // it tells what moves on its standard error
}

// labour is what a process does with its jobs.
type labour interface {
	serve(ctx context.Context, s *heartbeat.Session) error
	tell(what string) string // answers an order, in one line
}

func newLabour(work string, db *coordd.DB, spec memberSpec, log *slog.Logger) (labour, error) {
	switch work {
	case "ledger":
		return newLedger(db, spec, log), nil
	case "stamps":
		return &stamps{life: beginLife(spec.Life, rareSigns), log: log, turns: map[slotEpoch]*turn{}}, nil
	case "crowd":
		return &crowd{life: beginLife(spec.Life, rareSigns), log: log}, nil
	case "loop":
		return &loop{life: beginLife(spec.Life, rareSigns), log: log}, nil
	}
	return nil, fmt.Errorf("nobody knows how to %q", work)
}

func memberMain(described string) {
	if err := runMember(context.Background(), described); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runMember(ctx context.Context, described string) error {
	var spec memberSpec
	if err := json.Unmarshal([]byte(described), &spec); err != nil {
		return err
	}
	target, err := dsn.Parse(spec.DSN)
	if err != nil {
		return err
	}
	db, err := target.Open(ctx, spec.TTL/5) // as the daemon does
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	if spec.Listens {
		stop, err := listen(ctx, db, spec.DSN)
		if err != nil {
			return err
		}
		defer stop()
	}
	log := slog.New(slog.DiscardHandler)
	if spec.Verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("process", spec.Name)
	}
	work, err := newLabour(spec.Work, db, spec, log)
	if err != nil {
		return err
	}
	go obey(work, leave)
	for joined := false; ; {
		err := heartbeat.Run(ctx, db, heartbeat.Config{Name: spec.Name, TTL: spec.TTL, Logger: log}, func(ctx context.Context, s *heartbeat.Session) error {
			joined = true
			fmt.Println("joined", s.ID())
			return work.serve(ctx, s)
		})
		if joined || !errors.Is(err, coordd.ErrSlow) && !errors.Is(err, coordd.ErrUnreachable) {
			return err
		}
		sleep(ctx, 100*time.Millisecond, nil)
	}
}

// obey leaves when it is told to, or nobody is there to tell it anything any more.
func obey(work labour, leave func()) {
	defer leave()
	for orders := bufio.NewScanner(os.Stdin); orders.Scan() && orders.Text() != "leave"; {
		fmt.Println(work.tell(orders.Text()))
	}
}

// listen has a DB hear what other processes ring.
func listen(ctx context.Context, db *coordd.DB, dsn string) (stop func(), err error) {
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	l := pglisten.New(db, conn, pglisten.Config{})
	db.Listener = l
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	for end := time.Now().Add(time.Minute); l.Err() != nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	return func() { cancel(); running.Wait() }, l.Err()
}

// process is such a member seen from the test.
type process struct {
	*testing.T
	memberSpec
	id     atomic.Value  // of its latest session, a string
	joined chan struct{} // it was told of another
	cmd    *exec.Cmd
	orders io.WriteCloser
	lines  chan string // its other lines
	failed *bytes.Buffer
	ended  func() error // waits for its end
}

// start starts a process, and returns when it has joined. It is killed with the test.
func start(t *testing.T, spec memberSpec) *process {
	t.Helper()
	spec.Life = filepath.Join(t.TempDir(), "life")
	described, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{T: t, memberSpec: spec, cmd: exec.Command(exe), joined: make(chan struct{}, 1), lines: make(chan string, 64), failed: new(bytes.Buffer)}
	p.cmd.Env = append(os.Environ(), beMember+"="+string(described))
	p.cmd.Stderr = p.failed
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { p.read(out) })
	p.ended = sync.OnceValue(func() error { reading.Wait(); return p.cmd.Wait() })
	t.Cleanup(func() { p.cmd.Process.Kill(); p.ended() })
	p.awaitJoined("")
	return p
}

// latest is the ID of its latest session; empty: it has had none.
func (p *process) latest() string { id, _ := p.id.Load().(string); return id }

// read reads what the process says; a line may be long.
func (p *process) read(out io.Reader) {
	defer close(p.lines)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		if id, found := strings.CutPrefix(lines.Text(), "joined "); found {
			p.id.Store(id)
			select {
			case p.joined <- struct{}{}:
			default:
			}
			continue
		}
		p.lines <- lines.Text()
	}
}

// awaitJoined waits until it has another session than before, or its first.
func (p *process) awaitJoined(before string) {
	p.Helper()
	for p.latest() == before {
		select {
		case <-p.joined:
		case line := <-p.lines:
			p.Fatalf("%s: got %q, want it joined\n%s", p.Name, line, p.failed)
		case <-time.After(dbtest.Patience):
			p.Fatalf("%s: after %v: got nothing, want it joined\n%s", p.Name, dbtest.Patience, p.failed)
		}
	}
}

func scan(line, format string, into ...any) bool {
	n, err := fmt.Sscanf(line, format, into...)
	return err == nil && n == len(into)
}

// answer is the next line that it says.
func (p *process) answer() string {
	p.Helper()
	select {
	case line := <-p.lines:
		return line
	case <-time.After(time.Minute):
		p.Fatalf("%s: after a minute: got nothing, want an answer\n%s", p.Name, p.failed)
		return ""
	}
}

// ask has it answer an order.
func (p *process) ask(order string) string {
	p.Helper()
	if _, err := fmt.Fprintln(p.orders, order); err != nil {
		p.Fatal(err)
	}
	return p.answer()
}

// leave has it leave, and waits for its end.
func (p *process) leave() {
	p.Helper()
	if _, err := fmt.Fprintln(p.orders, "leave"); err != nil {
		p.Fatal(err)
	}
	if err := p.ended(); err != nil {
		p.Fatalf("%s was to leave: %v\n%s", p.Name, err, p.failed)
	}
}

// kill returns when it has ended.
func (p *process) kill() {
	p.Helper()
	p.signal(syscall.SIGKILL)
	p.ended()
}

func (p *process) signal(s syscall.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

// freeze returns when all of its threads stand still.
func (p *process) freeze() {
	p.Helper()
	p.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	for !status.Stopped() {
		if _, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			p.Fatal(err)
		}
		if status.Exited() || status.Signaled() {
			p.Fatalf("%s has ended: %v\n%s", p.Name, status, p.failed)
		}
	}
}

// instant is a clock that all processes of a machine share and nobody sets, in nanoseconds.
func instant() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every Unix has it
	}
	return t.Nano()
}

// life is what a process leaves of itself, whatever becomes of it: when its session was seen to
// be valid last, and how many jobs it does.
type life struct {
	file  *os.File
	pause time.Duration // between two signs
	valid atomic.Int64  // in this session
	busy  atomic.Int64

	mu   sync.Mutex
	hard []int64 // when it had troubles
}

// rareSigns are for who needs the time for something else.
const rareSigns = 10 * time.Millisecond

func beginLife(path string, pause time.Duration) *life {
	file, err := os.Create(path)
	if err != nil {
		panic(err)
	}
	return &life{file: file, pause: pause}
}

// standstill is a time for which nothing is done that should be, longer than on any machine that is
// not overloaded.
const standstill = 100 * time.Millisecond

// watch leaves signs until ctx ends. It also notes when its session's beats or looks
// fail, or it stands still: nobody counts the time of others then, so that what is promised begins anew.
func (l *life) watch(ctx context.Context, s *heartbeat.Session) {
	l.valid.Store(0)
	last, before := time.Now(), s.Stats()
	for sleep(ctx, l.pause, nil) {
		if now := instant(); s.Valid() {
			l.valid.Store(now)
		}
		var sign [16]byte
		binary.LittleEndian.PutUint64(sign[:8], uint64(l.valid.Load()))
		binary.LittleEndian.PutUint64(sign[8:], uint64(l.busy.Load()))
		if _, err := l.file.WriteAt(sign[:], 0); err != nil {
			panic(err)
		}
		now := s.Stats()
		if time.Since(last) > standstill || now.Failures != before.Failures || now.LookFailures != before.LookFailures {
			l.mu.Lock()
			l.hard = append(l.hard, instant())
			l.mu.Unlock()
		}
		last, before = time.Now(), now
	}
}

// beside watches until it is told to stop.
func (l *life) beside(ctx context.Context, s *heartbeat.Session) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	watching.Go(func() { l.watch(ctx, s) })
	return func() { cancel(); watching.Wait() }
}

// troubles are when it had any.
func (l *life) troubles() []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.hard)
}

// lastSign is when its session was seen to be valid last, and how many jobs it did.
func (p *process) lastSign() (valid int64, busy int) {
	p.Helper()
	sign, err := os.ReadFile(p.Life)
	if err != nil || len(sign) < 16 {
		return 0, 0 // it has given none yet
	}
	return int64(binary.LittleEndian.Uint64(sign)), int(binary.LittleEndian.Uint64(sign[8:]))
}
