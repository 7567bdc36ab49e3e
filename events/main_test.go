package events

import (
	"context"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// quick looks often, so that tests are short.
var quick = Config{Poll: 40 * time.Millisecond}

// appended records events about subjects in one transaction.
func appended(ctx context.Context, t *testing.T, db *coordd.DB, topic string, subjects ...string) {
	t.Helper()
	var events []journal.Event
	for _, s := range subjects {
		events = append(events, journal.Event{Topic: topic, Subject: s, Action: "happened", Data: "{}"})
	}
	err := db.Tx(ctx, func(tx coordd.Queries) error { return journal.Append(ctx, tx, events...) })
	if err != nil {
		t.Error(err)
	}
}

// bounded ends a watch that does not see what it should.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), dbtest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// watched takes n events of a watch, or the error that it ended with.
func watched(ctx context.Context, cfg Config, db *coordd.DB, from int64, n int, topics ...string) (events []Event, err error) {
	for e, err := range cfg.Watch(ctx, db, from, topics...) {
		if err != nil {
			return events, err
		}
		if events = append(events, e); len(events) == n {
			break
		}
	}
	return events, nil
}

// consecutive fails the test unless events are all those after a revision, in order.
func consecutive(t *testing.T, events []Event, after int64, n int) {
	t.Helper()
	if len(events) != n {
		t.Fatalf("got %d events, want %d", len(events), n)
	}
	for i, e := range events {
		if want := after + int64(i) + 1; e.Revision != want {
			t.Fatalf("event %d: got revision %d, want %d", i, e.Revision, want)
		}
	}
}

// set changes a counter as a restored backup would.
func set(t *testing.T, db *coordd.DB, name string, value int64) {
	t.Helper()
	if _, err := db.Exec(t.Context(), `update coordd_meta set value = ? where name = ?`, value, name); err != nil {
		t.Fatal(err)
	}
}
