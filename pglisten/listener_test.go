package pglisten

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// postgres is a migrated database, and how to connect to it without its pool. The name
// tells the connection from all others.
func postgres(t *testing.T) (db *coordd.DB, conn *pgx.ConnConfig, name string) {
	t.Helper()
	t.Parallel()
	dsn := dbtest.PostgresSchema(t)
	db = dbtest.Migrated(t, dsn)
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	name = "listener-" + uuid.NewString()
	conn.RuntimeParams["application_name"] = name
	return db, conn, name
}

// running runs a listener until the test ends, and waits for that.
func running(t *testing.T, db *coordd.DB, conn *pgx.ConnConfig, cfg Config) *Listener {
	t.Helper()
	l := New(db, conn, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
	})
	return l
}

func hears(t *testing.T, l *Listener) {
	t.Helper()
	dbtest.Eventually(t, "a listener that hears", func() bool { return l.Err() == nil })
}

func rung(t *testing.T, rings <-chan struct{}) {
	t.Helper()
	select {
	case <-rings:
	case <-time.After(dbtest.Patience):
		t.Fatalf("after %v: got nothing, want a ring", dbtest.Patience)
	}
}

// silent empties what has rung so far; others ring on the same server.
func silent(rings <-chan struct{}) {
	select {
	case <-rings:
	default:
	}
}

// changed records an event as coordd does, and rings.
func changed(t *testing.T, db *coordd.DB) {
	t.Helper()
	err := db.Tx(t.Context(), func(tx coordd.Queries) error {
		return journal.Append(t.Context(), tx, journal.Event{Topic: "test", Subject: "a", Action: "changed", Data: "{}"})
	})
	if err != nil {
		t.Fatal(err)
	}
	journal.Ring(t.Context(), db)
}

// watching sends the time at which each event is seen, until the test ends.
func watching(t *testing.T, db *coordd.DB, poll time.Duration) (seen <-chan time.Time) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	times, ended := make(chan time.Time, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for _, err := range (events.Config{Poll: poll}).Watch(ctx, db, 0) {
			if err != nil {
				t.Error(err)
				return
			}
			times <- time.Now()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return times
}

// A change is seen long before the next look, also after the server has ended the connection.
func TestAChangeIsSeenAtOnce(t *testing.T) {
	db, conn, name := postgres(t)
	l := running(t, db, conn, Config{})
	hears(t, l)
	db.Listener = l
	seen := watching(t, db, time.Hour) // looks again after 7 minutes and more
	see := func() {
		t.Helper()
		began := time.Now()
		changed(t, db)
		select {
		case at := <-seen:
			t.Logf("seen after %v", at.Sub(began))
		case <-time.After(30 * time.Second):
			t.Fatal("after 30s: got nothing, want the change")
		}
	}
	for range 5 {
		see()
	}
	pid := backend(t, db, name)
	if _, err := db.Exec(t.Context(), `select pg_terminate_backend(?)`, pid); err != nil {
		t.Fatal(err)
	}
	dbtest.Eventually(t, "another connection", func() bool { now := backend(t, db, name); return now != 0 && now != pid })
	hears(t, l)
	see()
}

// backend is the server's process of the connection that bears a name; 0: there is none.
func backend(t *testing.T, db *coordd.DB, name string) (pid int64) {
	t.Helper()
	err := db.Get(t.Context(), []any{&pid}, `select coalesce(max(pid), 0) from pg_stat_activity where application_name = ?`, name)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Nothing depends on a listener: without one, and with one that hears nothing.
func TestPollingAloneWorks(t *testing.T) {
	for _, kind := range []string{"none", "deaf"} {
		t.Run(kind, func(t *testing.T) {
			db, conn, _ := postgres(t)
			if kind == "deaf" {
				db.Listener = New(db, conn, Config{}) // and does not run
			}
			seen := watching(t, db, 100*time.Millisecond)
			for range 3 {
				changed(t, db)
				select {
				case <-seen:
				case <-time.After(30 * time.Second):
					t.Fatal("after 30s: got nothing, want the change")
				}
			}
		})
	}
}

// A LISTEN that is accepted and hears nothing, as through a pooler: here, of another database.
func TestDeafnessIsNoticed(t *testing.T) {
	db, conn, _ := postgres(t)
	conn.Database = "template1"
	l := running(t, db, conn, Config{Timeout: 300 * time.Millisecond})
	rings, stop := listen(l)
	defer stop()
	dbtest.Eventually(t, "a listener that knows that it is deaf", func() bool { return errors.Is(l.Err(), ErrDeaf) })
	select {
	case <-rings:
		t.Fatal("got a ring, want none from a listener that is deaf")
	default:
	}
}

// A probe tells both, once, and leaves nothing behind.
func TestAProbeTellsWhetherItHears(t *testing.T) {
	db, conn, name := postgres(t)
	l := New(db, conn, Config{Timeout: 30 * time.Second})
	if err := l.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn.Database = "template1"
	if err := New(db, conn, Config{Timeout: 5 * time.Second}).Probe(t.Context()); !errors.Is(err, ErrDeaf) {
		t.Fatalf("got %v, want %v", err, ErrDeaf)
	}
	if l.Err() == nil {
		t.Fatal("got a listener that hears, want only to have asked")
	}
	dbtest.Eventually(t, "no connection left", func() bool { return backend(t, db, name) == 0 })
}

// A path that is dropped without a word: all that is sent is lost, and no connection ends.
func TestADroppedPathIsNoticed(t *testing.T) {
	db, conn, _ := postgres(t)
	var dropped atomic.Bool
	conn.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &lossy{c, &dropped}, err
	}
	l := running(t, db, conn, Config{Ping: 50 * time.Millisecond, Timeout: 500 * time.Millisecond})
	rings, stop := listen(l)
	defer stop()
	rung(t, rings) // it hears
	dropped.Store(true)
	began := time.Now()
	dbtest.Eventually(t, "a listener that has noticed", func() bool { return l.Err() != nil })
	if d := time.Since(began); d > 10*time.Second { // pgx would talk to the dead path for 15 s
		t.Errorf("noticed, and the connection given up, after %v: want 10s at most", d)
	}
	silent(rings)
	dropped.Store(false)
	rung(t, rings) // for what it may have missed
	hears(t, l)
}

// lossy is a connection that loses what is sent either way while it is dropped.
type lossy struct {
	net.Conn
	dropped *atomic.Bool
}

func (c *lossy) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.dropped.Load() {
			return n, err
		}
	}
}

func (c *lossy) Write(b []byte) (int, error) {
	if c.dropped.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A server that takes the connection and says nothing does not keep Run from ending.
func TestRunEndsWithItsContext(t *testing.T) {
	db, conn, _ := postgres(t)
	conn.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		silence := new(atomic.Bool)
		silence.Store(true)
		return &lossy{c, silence}, err
	}
	l := New(db, conn, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	time.AfterFunc(50*time.Millisecond, cancel)
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("got %v, want nil", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("after 30s: got nothing, want the end")
	}
	if l.Err() == nil {
		t.Fatal("after its end: got a listener that hears")
	}
}

// Whoever does not take a ring holds up nobody, and several are one.
func TestRingsWaitForNobody(t *testing.T) {
	db, conn, _ := postgres(t)
	l := running(t, db, conn, Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	_, stopIdle := listen(l)
	defer stopIdle()
	rings, stop := listen(l)
	for range 10 {
		changed(t, db)
	}
	rung(t, rings)
	stop()
	stop() // harmless
}

// Elsewhere ringing does nothing, and there is nothing to listen to.
func TestOnlyPostgresRings(t *testing.T) {
	db := dbtest.Migrated(t, dbtest.SQLiteFile(t))
	if err := db.Ring(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ParseConfig("postgres://localhost/none")
	if err != nil {
		t.Fatal(err)
	}
	if err := New(db, conn, Config{}).Run(t.Context()); !errors.Is(err, coordd.ErrInvalid) {
		t.Fatalf("got %v, want %v", err, coordd.ErrInvalid)
	}
}

// listen is a channel that rings for the topic of events.
func listen(l *Listener) (rings <-chan struct{}, stop func()) {
	ear := make(chan struct{}, 1)
	return ear, l.Listen("", func() {
		select {
		case ear <- struct{}{}:
		default:
		}
	})
}
