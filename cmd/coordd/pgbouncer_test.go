package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/lock"
)

// Everybody goes through PgBouncer in transaction mode, where no setting of a session holds, and
// everything works but NOTIFY; which the doctor says.
func TestAllWorksThroughPgBouncer(t *testing.T) {
	t.Parallel()
	dbtest.AsAdministrator(t) // it migrates
	ctx := t.Context()
	bouncer, unreached := dbtest.PgBouncer(t, dbtest.PostgresSchema(t)), 0
	dsn := bouncer.DSN
	works := func(args ...string) {
		t.Helper()
		dbtest.Eventually(t, "a PgBouncer that answers", func() bool {
			code, stdout, stderr := run(t, append(args, "--dsn", dsn)...)
			if code == exitDatabase && strings.Contains(stderr, "the database cannot be reached") {
				unreached++
				return false
			}
			if code != exitOK {
				t.Fatalf("coordd %v: got code %d, want %d: %s%s", args, code, exitOK, stdout, stderr)
			}
			return true
		})
	}
	works("migrate", "up")
	db := dbtest.Open(t, dsn)
	seen := everyEvent(t, db)

	startMember(t, db, dsn, "app-1")
	startMember(t, db, dsn, "app-2")
	killed, victim := startMember(t, db, dsn, "app-3")
	session, err := heartbeat.Join(ctx, db, heartbeat.Config{Name: "app-4"})
	if err != nil {
		t.Fatal(err)
	}
	held, err := lock.Acquire(ctx, session, lock.Exclusive("report"))
	if err != nil {
		t.Fatal(err)
	}
	leads, err := election.Campaign(ctx, session, election.Config{Name: "scheduler"})
	if err != nil {
		t.Fatal(err)
	}
	killed.signal(t, syscall.SIGKILL)
	dbtest.Eventually(t, "app-3 dead", func() bool { return stateOf(t, db, victim.ID) == heartbeat.Dead })
	dbtest.Eventually(t, "five beats", func() bool { return session.Stats().Beats >= 5 })
	if !session.Valid() || !held.Valid() || !leads.Valid() {
		t.Errorf("got session valid %v, lock %v, leadership %v; want all (%+v)", session.Valid(), held.Valid(), leads.Valid(), session.Stats())
	}
	posted(t, db, "order-7") // one of the daemons moves it
	works("drain", session.ID())
	works("undrain", session.ID())
	if err := errors.Join(leads.Resign(ctx), held.Release(ctx), session.Leave(ctx)); err != nil {
		t.Error(err)
	}
	works("members")

	for last, missing := int64(0), map[string]bool{
		"joined app-1": true, "joined app-2": true, "joined app-3": true, "died app-3": true, "happened order-7": true,
		"joined app-4": true, "granted scheduler": true, "draining app-4": true, "undrained app-4": true, "left app-4": true,
	}; len(missing) > 0; {
		select {
		case e := <-seen:
			if e.Revision != last+1 {
				t.Fatalf("after event %d: got %d, want each once and in order", last, e.Revision)
			}
			last = e.Revision
			delete(missing, e.Action+" "+e.Subject)
		case <-time.After(dbtest.Patience):
			t.Fatalf("after %v: not seen were %v", dbtest.Patience, missing)
		}
	}
	if n, err := heartbeat.Purge(ctx, db, 0); err != nil || n == 0 {
		t.Errorf("purge: got %d and %v, want those that have ended", n, err)
	}
	if n, err := events.Compact(ctx, db, 0); err != nil || n == 0 {
		t.Errorf("compact: got %d and %v, want what is old", n, err)
	}
	if unreached > 0 && bouncer.Ended.Load() == 0 {
		t.Errorf("%d commands did not reach a PgBouncer that was there all the time", unreached)
	}
	all := findings(t, dsn, exitOK, "--ttl", "15s")
	for name, f := range all {
		deaf := name == "pooler" || name == "notify"
		if deaf != (*f.Verdict == "warning") && name != "durability" { // the servers of tests do not flush
			t.Errorf("%s: got %s: %s", name, *f.Verdict, *f.Found)
		}
	}
	if len(all) < 15 {
		t.Errorf("got %d findings, want 15 at least", len(all))
	}
}

// everyEvent sends what a watch yields, until the test ends.
func everyEvent(t *testing.T, db *coordd.DB) <-chan events.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan events.Event, 1000)
	var ended sync.WaitGroup
	ended.Go(func() {
		for e, err := range (events.Config{Poll: 100 * time.Millisecond}).Watch(ctx, db, 0) {
			if err != nil {
				t.Error(err)
				return
			}
			seen <- e
		}
	})
	t.Cleanup(func() { cancel(); ended.Wait() })
	return seen
}
