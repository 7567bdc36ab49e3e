package httpapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/internal/dbtest"
)

// A program that goes on renewing and does not end what it was told to loses its stream, before the daemon would
// lose the session in which it holds things for others too.
func TestAProgramThatDoesNotEndItsWorkLosesItsStream(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		if err := assign.Define(t.Context(), db, assign.Group{Name: "g", Slots: 8, Options: assign.Options{Gather: time.Millisecond, Obey: dbtest.Stretch(12 * time.Second)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := assign.Add(t.Context(), db, "g", assign.Spec{Key: "orders"}); err != nil {
			t.Fatal(err)
		}
		program, status := d.open(t, "POST", "/v1/groups/g/stream?ttl=1m", "")
		if status != 200 {
			t.Fatalf("got status %d", status)
		}
		program.wants("retry: 1000|id: 0|event: hello")
		program.wants(`id: 1|event: change|data: {"change":1`)
		if err := assign.Remove(t.Context(), db, "g", "orders"); err != nil {
			t.Fatal(err)
		}
		program.wants("id: 2|event: change")
		for program.message() != "" { // pings, until the end of the stream
		}
		if !strings.Contains(d.log.String(), "does not end what it was told to end") || d.session.Err() != nil {
			t.Errorf("the stream has ended, and the session: %v; log: %s", d.session.Err(), d.log)
		}
	})
}

// A program that is told to end all that it has, and is gone before it says that it has, keeps
// nobody from it, and the daemon from nothing.
func TestAProgramThatIsGoneHasEndedWhatItWasToldTo(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		if err := assign.Define(t.Context(), db, assign.Group{Name: "g", Slots: 8, Options: assign.Options{Gather: time.Millisecond}}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second one opens what the first has left
			if _, err := assign.Add(t.Context(), db, "g", assign.Spec{Key: "orders"}); err != nil {
				t.Fatal(err)
			}
			var program *listening
			dbtest.Eventually(t, "a group that nobody serves", func() bool {
				var status int
				program, status = d.open(t, "POST", "/v1/groups/g/stream", "")
				return status == 200
			})
			program.wants("retry: 1000|id: 0|event: hello")
			program.wants(`id: 1|event: change|data: {"change":1`)
			if err := assign.Remove(t.Context(), db, "g", "orders"); err != nil {
				t.Fatal(err)
			}
			if data := program.wants("id: 2|event: change"); !strings.Contains(data, `"released":["orders"]`) {
				t.Fatalf("got %s, want that it is told to end its job", data)
			}
			program.close()
		}
	})
}

// The stream of a daemon that leaves ends with what passes, and not with a bug.
func TestAStreamOfADaemonThatLeavesSaysSo(t *testing.T) {
	t.Parallel()
	db := dbtest.Migrated(t, dbtest.SQLiteFile(t))
	d := serve(t, db)
	if err := assign.Define(t.Context(), db, assign.Group{Name: "g", Slots: 8}); err != nil {
		t.Fatal(err)
	}
	program, _ := d.open(t, "POST", "/v1/groups/g/stream", "")
	program.wants("retry: 1000|id: 0|event: hello")
	if err := d.session.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	for last := ""; ; {
		m := program.message()
		if m == "" {
			if !strings.Contains(last, `"code":"no_session"`) {
				t.Fatalf("got %q at last", last)
			}
			return
		}
		last = m
	}
}
