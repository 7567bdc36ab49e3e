package journal_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var errRolledBack = errors.New("rolled back on purpose")

// event is an event that its subject tells from others.
func event(subject string) journal.Event {
	return journal.Event{Topic: "test", Subject: subject, Action: "happened", Data: "{}"}
}

// appended records events in a transaction of their own.
func appended(t *testing.T, db *coordd.DB, subjects ...string) {
	t.Helper()
	err := db.Tx(t.Context(), func(tx coordd.Queries) error {
		var events []journal.Event
		for _, s := range subjects {
			events = append(events, event(s))
		}
		return journal.Append(t.Context(), tx, events...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// posted writes events to the outbox in a transaction of their own.
func posted(t *testing.T, db *coordd.DB, subjects ...string) {
	t.Helper()
	tx := begun(t, db)
	for _, s := range subjects {
		if err := journal.Outbox(t.Context(), db.On(tx), event(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// begun is a transaction of a user's own, that is rolled back with the test at the latest.
func begun(t *testing.T, db *coordd.DB) *sql.Tx {
	t.Helper()
	tx, err := db.Pool().BeginTx(context.WithoutCancel(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	return tx
}

// drained drains until nothing is left, and says how many it moved.
func drained(t *testing.T, db *coordd.DB) (total int) {
	t.Helper()
	for {
		moved, err := journal.Drain(t.Context(), db)
		if err != nil {
			t.Error(err)
			return total
		}
		if moved == 0 {
			return total
		}
		total += moved
	}
}

// logged is every event of the log; its revisions must be 1, 2, 3 and so on.
func logged(t *testing.T, db *coordd.DB) (events []journal.Event) {
	t.Helper()
	for after := int64(0); ; {
		page, err := journal.Read(t.Context(), db.Queries, after, 500)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, page.Events...)
		if after = page.Next; after == page.Revision {
			break
		}
	}
	for i, e := range events {
		if e.Revision != int64(i+1) {
			t.Fatalf("event %d: got revision %d, want %d", i, e.Revision, i+1)
		}
	}
	return events
}

func subjects(events []journal.Event) (all []string) {
	for _, e := range events {
		all = append(all, e.Subject)
	}
	return all
}
