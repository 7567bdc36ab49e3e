package election

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dsn"
)

// The test binary is a candidate, a process of its own, if this names a database in its
// environment.
const beCandidate = "COORDD_TEST_BE_CANDIDATE"

// candidate leads, and does what it is told by lines on its standard input, one step each. It
// answers each with a line.
type candidate struct {
	db *coordd.DB
	l  *Leadership
	tx *sql.Tx
}

func candidateMain() {
	if err := runCandidate(context.Background()); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runCandidate(ctx context.Context) error {
	target, err := dsn.Parse(os.Getenv(beCandidate))
	if err != nil {
		return err
	}
	db, err := target.Open(ctx, time.Hour) // the server ends no transaction of one that is frozen
	if err != nil {
		return err
	}
	ttl, err := time.ParseDuration(os.Args[1])
	if err != nil {
		return err
	}
	s, err := heartbeat.Join(ctx, db, heartbeat.Config{Name: "candidate", TTL: ttl})
	if err != nil {
		return err
	}
	l, err := Campaign(ctx, s, Config{Name: "x"})
	if err != nil {
		return err
	}
	fmt.Println("elected")
	c := candidate{db: db, l: l}
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		answer := "done"
		if err := c.obey(ctx, orders.Text()); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(answer)
	}
	return nil
}

var errNotValid = errors.New("not valid")

func (c *candidate) obey(ctx context.Context, order string) (err error) {
	switch order {
	case "is it valid":
		if !c.l.Valid() {
			err = errNotValid
		}
	case "write":
		if c.tx, err = c.db.Begin(ctx); err == nil {
			_, err = c.db.On(c.tx).Exec(ctx, `insert into written (term) values (?)`, c.l.Term())
		}
	case "guard":
		err = c.l.Guard(ctx, c.tx)
	case "fence":
		err = c.fence(ctx)
	case "commit":
		err = c.tx.Commit()
	case "rollback":
		err = c.tx.Rollback()
	case "resign":
		err = c.l.Resign(ctx)
	default:
		err = errors.New("no such order")
	}
	return err
}

// fence is the guard as a statement, without a look at any clock before it.
func (c *candidate) fence(ctx context.Context) error {
	fence, err := c.l.Fence(ctx)
	if err != nil {
		return err
	}
	var bound string
	err = c.tx.QueryRowContext(ctx, fence.Query, fence.Args...).Scan(&bound)
	if errors.Is(err, sql.ErrNoRows) {
		return coordd.ErrFenced
	}
	return err
}

// process is a candidate seen from the test.
type process struct {
	*testing.T
	cmd    *exec.Cmd
	orders io.WriteCloser
	lines  chan string
	failed *bytes.Buffer
}

// start starts a candidate, and returns when it leads. It is killed with the test.
func start(t *testing.T, dsn string, ttl time.Duration) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{T: t, cmd: exec.Command(exe, ttl.String()), lines: make(chan string, 16), failed: new(bytes.Buffer)}
	p.cmd.Env = append(os.Environ(), beCandidate+"="+dsn)
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
	reading.Go(func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.lines <- lines.Text()
		}
	})
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		reading.Wait()
		p.cmd.Wait()
	})
	if got := p.answer(); got != "elected" {
		t.Fatalf("the candidate: got %q, want it elected\n%s", got, p.failed)
	}
	return p
}

// order has it do something once it has done what it was told before.
func (p *process) order(order string) {
	p.Helper()
	if _, err := fmt.Fprintln(p.orders, order); err != nil {
		p.Fatal(err)
	}
}

// answer is what came of an order.
func (p *process) answer() string {
	p.Helper()
	select {
	case line := <-p.lines:
		return line
	case <-time.After(time.Minute):
		p.Fatal("after a minute: got nothing, want an answer of the candidate")
		return ""
	}
}

// do has something done that cannot fail.
func (p *process) do(order string) {
	p.Helper()
	p.order(order)
	if got := p.answer(); got != "done" {
		p.Fatalf("%s: got %q, want it done", order, got)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

// stop freezes the process. When it returns, all of its threads stand still.
func (p *process) stop() {
	p.Helper()
	p.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	for !status.Stopped() {
		if _, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			p.Fatal(err)
		}
		if status.Exited() || status.Signaled() {
			p.Fatalf("the candidate has ended: %v\n%s", status, p.failed)
		}
	}
}

// freeze stops it at a moment at which no statement of it is under way: on SQLite a beat that is
// frozen in its midst would keep everybody from the file.
func (p *process) freeze(db *coordd.DB) {
	p.Helper()
	for {
		p.stop()
		ctx, cancel := context.WithTimeout(p.Context(), time.Second)
		_, err := db.Exec(ctx, `update coordd_meta set value = value + 0 where name = 'max_ttl'`)
		cancel()
		if err == nil {
			return
		}
		p.signal(syscall.SIGCONT)
	}
}
