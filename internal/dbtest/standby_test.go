package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	timeline = `select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)`
	cluster  = `select system_identifier::text from pg_control_system()`
	all      = `select coalesce(string_agg(n::text, ' ' order by n), '') from kept`
)

func TestAFailoverLosesWhatADetachedStandbyMissed(t *testing.T) {
	t.Parallel()
	primary := StartPostgres(t, Extra{})
	standby := StartStandby(t, primary, false)
	gate := StartSwitch(t, primary)
	db := Open(t, gate.DSN()).Pool()
	ask(t, db, `create table kept (n int primary key)`)
	ask(t, db, `insert into kept values (1)`)
	must(t, standby.Detach())
	ask(t, db, `insert into kept values (2)`)
	if got, want := ask(t, db, all), "1 2"; got != want {
		t.Fatalf("on the old primary: got %q, want %q", got, want)
	}
	oldTimeline, oldCluster := ask(t, db, timeline), ask(t, db, cluster)

	primary.Kill()
	must(t, standby.Promote())
	gate.Point(standby.Server)
	Eventually(t, "the pool reaches the new primary", func() bool { return db.Ping() == nil })
	if got, want := ask(t, db, all), "1"; got != want {
		t.Fatalf("on the new primary: got %q, want %q", got, want)
	}
	if got := ask(t, db, timeline); got == oldTimeline {
		t.Fatalf("got timeline %s on both primaries, want two", got)
	}
	if got := ask(t, db, cluster); got != oldCluster {
		t.Fatalf("got system identifier %s, want %s as before", got, oldCluster)
	}
}

// Primaries are killed under a writer, who finds the next one by the old address.
func TestAFailoverToASynchronousStandbyLosesNothing(t *testing.T) {
	t.Parallel()
	primary := StartPostgres(t, Extra{})
	ask(t, Open(t, primary.DSN()).Pool(), `create table kept (n int primary key)`)
	gate := StartSwitch(t, primary)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	written := write(ctx, t, Open(t, gate.DSN()).Pool())
	var acknowledged []string
	more := func(n int) {
		acknowledged = append(acknowledged, receive(t, written, len(written)+n)...)
	}

	for range 2 {
		standby := StartStandby(t, primary, true)
		more(100)
		before := ask(t, Open(t, primary.DSN()).Pool(), timeline)
		primary.Kill()
		must(t, standby.Promote())
		more(0)
		gate.Point(standby.Server)
		more(100)
		primary = standby.Server
		if got := ask(t, Open(t, primary.DSN()).Pool(), timeline); got == before {
			t.Fatalf("got timeline %s on both primaries, want two", got)
		}
	}

	stop()
	for n := range written {
		acknowledged = append(acknowledged, n)
	}
	kept := strings.Fields(ask(t, Open(t, primary.DSN()).Pool(), all))
	for _, n := range acknowledged {
		if !slices.Contains(kept, n) {
			t.Fatalf("row %s is lost of %d acknowledged; %d are kept", n, len(acknowledged), len(kept))
		}
	}
}

func TestASynchronousPrimaryAcknowledgesNothingAlone(t *testing.T) {
	t.Parallel()
	primary := StartPostgres(t, Extra{})
	standby := StartStandby(t, primary, true)
	db := Open(t, primary.DSN()).Pool()
	ask(t, db, `create table kept (n int primary key)`)
	must(t, standby.Detach())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
	defer cancel()
	if _, err := db.ExecContext(ctx, `insert into kept values (1)`); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want no answer", err)
	}
	// Who no longer waits is shown what no standby has.
	Eventually(t, "the row shows", func() bool { return ask(t, db, all) == "1" })
	primary.Kill()
	must(t, standby.Promote())
	if got := ask(t, Open(t, standby.DSN()).Pool(), all); got != "" {
		t.Fatalf("on the new primary: got %q, want nothing", got)
	}
}

// write inserts one number after the other, and returns those that were acknowledged.
func write(ctx context.Context, t *testing.T, db *sql.DB) <-chan string {
	acknowledged := make(chan string, 100_000)
	go func() {
		defer close(acknowledged)
		for n := 0; ctx.Err() == nil; n++ {
			if _, err := db.ExecContext(ctx, fmt.Sprintf(`insert into kept values (%d)`, n)); err == nil {
				acknowledged <- fmt.Sprint(n)
			}
		}
	}()
	t.Cleanup(func() {
		for range acknowledged { // until it has ended
		}
	})
	return acknowledged
}

// receive waits for n more.
func receive(t *testing.T, from <-chan string, n int) (got []string) {
	t.Helper()
	late := time.After(readyWithin)
	for range n {
		select {
		case s := <-from:
			got = append(got, s)
		case <-late:
			t.Fatalf("got %d of %d within %v", len(got), n, readyWithin)
		}
	}
	return got
}
