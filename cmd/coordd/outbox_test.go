package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
	"github.com/coordd/coordd/pglisten"
)

// posted records an event in a transaction of a user's own.
func posted(t *testing.T, db *coordd.DB, subject string) {
	t.Helper()
	tx, err := db.Pool().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := journal.Outbox(t.Context(), db.On(tx), journal.Event{Topic: "user", Subject: subject, Action: "happened", Data: "{}"}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// watching sends the subjects of users' events as they are seen, until the test ends.
func watching(t *testing.T, db *coordd.DB, poll time.Duration) (seen <-chan string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	subjects := make(chan string, 1000)
	var ended sync.WaitGroup
	ended.Go(func() {
		for e, err := range (events.Config{Poll: poll}).Watch(ctx, db, 0, "user") {
			if err != nil {
				t.Error(err)
				return
			}
			subjects <- e.Subject
		}
	})
	t.Cleanup(func() { cancel(); ended.Wait() })
	return subjects
}

// arrives posts an event, and says how long it took until it was seen.
func arrives(t *testing.T, db *coordd.DB, seen <-chan string, subject string) time.Duration {
	t.Helper()
	began := time.Now()
	posted(t, db, subject)
	select {
	case got := <-seen:
		if got != subject {
			t.Fatalf("got %s, want %s", got, subject)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("after 30s: got nothing, want %s", subject)
	}
	return time.Since(began)
}

func TestAnOutboxRowBecomesAnEvent(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		startMember(t, db, dsn, "app-1")
		startMember(t, db, dsn, "app-2") // one of the two moves it
		seen := watching(t, db, 100*time.Millisecond)
		for i := range 3 {
			t.Logf("seen after %v", arrives(t, db, seen, fmt.Sprint("event-", i)))
		}
	})
}

// A watcher in another process that would not look for minutes sees it at once, as the daemon
// rings when it has moved it.
func TestADaemonRingsForTheOutbox(t *testing.T) {
	t.Parallel()
	dsn := dbtest.PostgresSchema(t)
	db := dbtest.Migrated(t, dsn)
	p, _ := startMember(t, db, dsn, "app-1")
	heard := func() bool { return strings.Contains(p.output.String(), "changes are heard") }
	dbtest.Eventually(t, "a daemon that hears", heard)
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	ears := pglisten.New(db, conn, pglisten.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() { ears.Run(ctx) })
	t.Cleanup(func() { cancel(); ended.Wait() })
	dbtest.Eventually(t, "a watcher that hears", func() bool { return ears.Err() == nil })
	db.Listener = ears
	seen := watching(t, db, time.Hour)
	for i := range 5 {
		t.Logf("seen after %v", arrives(t, db, seen, fmt.Sprint("event-", i)))
	}
}

// Through PgBouncer a daemon hears nothing: it says so once, and what to do, and polls on.
func TestADeafDaemonPollsOn(t *testing.T) {
	dbtest.AsAdministrator(t)
	t.Parallel()
	dsn := dbtest.PostgresSchema(t)
	through := dbtest.PgBouncer(t, dsn).DSN
	if code, _, stderr := run(t, "migrate", "up", "--dsn", through); code != exitOK {
		t.Fatalf("migrate up: got code %d and %s, want %d", code, stderr, exitOK)
	}
	db := dbtest.Open(t, dsn)
	p, member := startMember(t, db, through, "app-1")
	dbtest.Eventually(t, "a daemon that knows that it is deaf", func() bool {
		return strings.Contains(p.output.String(), "connect straight to the server")
	})
	seen := watching(t, db, 100*time.Millisecond)
	t.Logf("seen after %v", arrives(t, db, seen, "event"))
	time.Sleep(*ttl) // and it tries to listen again meanwhile
	if got := stateOf(t, db, member.ID); got != heartbeat.Alive {
		t.Fatalf("got %s, want %s", got, heartbeat.Alive)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != exitOK {
		t.Fatalf("exit code: got %d, want %d", code, exitOK)
	}
	if got := strings.Count(p.output.String(), "changes are not heard"); got != 1 {
		t.Fatalf("got %d warnings, want 1:\n%s", got, p.output)
	}
}

// draining drains a database in virtual time until the test ends, and keeps its log.
func draining(t *testing.T, db *coordd.DB) (log *output) {
	t.Helper()
	log = new(output)
	d := &daemon{db: db, log: slog.New(slog.NewTextHandler(log, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := d.drain(ctx); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	})
	t.Cleanup(func() { cancel(); ended.Wait() })
	return log
}

// bell is a Listener that rings ten times a second.
type bell struct{}

func (bell) Err() error { return nil }

func (bell) Listen(_ string, ring func()) (stop func()) {
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		for tick := time.Tick(100 * time.Millisecond); ; {
			select {
			case <-tick:
				ring()
			case <-done:
				return
			}
		}
	})
	return func() { close(done); ended.Wait() }
}

// However often it rings, a daemon asks once a second at the most; and half as often if not.
func TestAnEmptyOutboxIsCheap(t *testing.T) {
	for name, test := range map[string]struct {
		listener    coordd.Listener
		least, most int // statements an hour
	}{"idle": {nil, 1700, 1900}, "ringing": {bell{}, 3000, 3601}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, db, tap := dbtest.VirtualTime(t)
				db.Listener = test.listener
				draining(t, db)
				before := tap.Statements()
				time.Sleep(time.Hour)
				if got := tap.Statements() - before; got < test.least || got > test.most {
					t.Fatalf("in an hour: got %d statements, want %d to %d", got, test.least, test.most)
				}
			})
		})
	}
}

// Whatever fails, for however long, the outbox is moved once it can be. That is said once, and
// that it is over.
func TestAnOutageEndsNoDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, tapped, tap := dbtest.VirtualTime(t)
		log := draining(t, tapped)
		for range 3 {
			said := len(log.String())
			tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
			before := tap.Statements()
			time.Sleep(time.Hour)
			if got := tap.Statements() - before; got < 200 || got > 1000 {
				t.Fatalf("in an hour of outage: got %d statements, want about 400", got)
			}
			for i := range journal.Batch + 50 {
				posted(t, db, fmt.Sprint("event-", i))
			}
			tap.Disturb(nil)
			time.Sleep(drainRetry*3/2 + drainPause)
			var left int
			if err := db.Get(t.Context(), []any{&left}, `select count(*) from coordd_outbox`); err != nil || left != 0 {
				t.Fatalf("soon after an outage: got %d in the outbox and %v, want none", left, err)
			}
			if got := log.String()[said:]; strings.Count(got, "\n") != 2 || !strings.Contains(got, "WARN") || !strings.Contains(got, "INFO") {
				t.Fatalf("got:\n%s\nwant one warning and one recovery", got)
			}
			time.Sleep(time.Minute)
		}
	})
}
