package events

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

func TestE2AWatchTakesTopics(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := bounded(t)
		appended(ctx, t, db, "a", "1", "2")
		appended(ctx, t, db, "b", "3")
		appended(ctx, t, db, "c", "4")
		appended(ctx, t, db, "a", "5")
		events, err := watched(ctx, quick, db, 1, 3, "a", "c")
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(events[0].Subject, events[1].Subject, events[2].Subject); got != "245" {
			t.Fatalf("got %s, want 245", got)
		}
		listed, err := List(ctx, db, 1, 2, "a", "c")
		if err != nil || len(listed) != 2 || listed[0] != events[0] || listed[1] != events[1] {
			t.Fatalf("list: got %v and %v, want the first two of %v", listed, err, events)
		}
	})
}

// More than a page, and what comes while it waits.
func TestE2AWatchGoesOnWhereTheLogEnds(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := bounded(t)
		var many []string
		for i := range page + 20 {
			many = append(many, fmt.Sprint(i))
		}
		appended(ctx, t, db, "a", many...)
		var events []Event
		for e, err := range quick.Watch(ctx, db, 0) {
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
			if e.Revision == page+20 {
				appended(ctx, t, db, "a", "one more") // while the watch is waiting for its caller
			}
			if e.Subject == "one more" {
				break
			}
		}
		consecutive(t, events, 0, page+21)
	})
}

func TestE2AWatchFromBehindACompactionIsRefused(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := bounded(t)
		appended(ctx, t, db, "a", "1", "2", "3", "4")
		if _, err := journal.Compact(ctx, db, journal.Retention{Count: 2}); err != nil {
			t.Fatal(err)
		}
		if got, err := watched(ctx, quick, db, 1, 1); !errors.Is(err, ErrCompacted) || len(got) > 0 {
			t.Fatalf("got %v and %v, want %v", got, err, ErrCompacted)
		}
		if _, err := List(ctx, db, 1, 1); !errors.Is(err, ErrCompacted) {
			t.Fatalf("list: got %v, want %v", err, ErrCompacted)
		}
		got, err := watched(ctx, quick, db, 2, 2)
		if err != nil {
			t.Fatal(err)
		}
		consecutive(t, got, 2, 2)
	})
}

// A watch whose caller is slower than the retention.
func TestE2AWatchThatFallsBehindIsTold(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := bounded(t)
		appended(ctx, t, db, "a", "1")
		var end error
		for _, err := range quick.Watch(ctx, db, 0) {
			if end = err; err != nil {
				continue // there must be nothing after it
			}
			appended(ctx, t, db, "a", "2", "3")
			if _, err := journal.Compact(ctx, db, journal.Retention{}); err != nil {
				t.Fatal(err)
			}
		}
		if !errors.Is(end, ErrCompacted) {
			t.Fatalf("got %v, want %v", end, ErrCompacted)
		}
	})
}

// A restored backup.
func TestE2ARevisionThatFallsIsLostHistory(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := bounded(t)
		appended(ctx, t, db, "a", "1", "2", "3")
		var end error
		for e, err := range quick.Watch(ctx, db, 1) {
			if end = err; err == nil && e.Revision == 3 {
				set(t, db, "revision", 2)
			}
		}
		if !errors.Is(end, coordd.ErrHistoryLost) {
			t.Fatalf("got %v, want %v", end, coordd.ErrHistoryLost)
		}
		if _, err := watched(ctx, quick, db, 3, 1); !errors.Is(err, coordd.ErrHistoryLost) {
			t.Fatalf("resumed: got %v, want %v", err, coordd.ErrHistoryLost)
		}
	})
}

// Also when it falls to what the watch has not come to yet.
func TestE2AWatchRemembersTheNewestRevision(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := bounded(t)
		var many []string
		for i := range page + 20 {
			many = append(many, fmt.Sprint(i))
		}
		appended(ctx, t, db, "a", many...)
		var got int64
		var end error
		for e, err := range quick.Watch(ctx, db, 0) {
			if end = err; err == nil && e.Revision == 1 {
				set(t, db, "revision", page+10)
			}
			got = max(got, e.Revision)
		}
		if !errors.Is(end, coordd.ErrHistoryLost) || got != page {
			t.Fatalf("got %v after revision %d, want %v after %d", end, got, coordd.ErrHistoryLost, page)
		}
	})
}

// Replies are lost and statements never sent, now and then and several in a row.
func TestE2AWatchSurvivesOutages(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		shaky, tap := dbtest.OpenTapped(t, dsn)
		ctx := bounded(t)
		var outage, lost atomic.Int32 // statements that are still to be lost, and that were
		tap.Disturb(func(_ context.Context, _ string, do func() error) error {
			dice := rand.IntN(8)
			if outage.Add(-1) < 0 && dice > 1 {
				return do()
			}
			if dice == 0 {
				do()
			}
			lost.Add(1)
			return dbtest.ErrReplyLost
		})
		const n = 30
		var events []Event
		appended(ctx, t, db, "a", "first")
		for e, err := range quick.Watch(ctx, shaky, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if events = append(events, e); len(events) == n {
				break
			}
			if len(events)%10 == 0 {
				outage.Store(5)
			}
			appended(ctx, t, db, "a", fmt.Sprint(len(events)))
		}
		consecutive(t, events, 0, n)
		if lost.Load() < 10 {
			t.Fatalf("got %d lost statements, want 10 at least", lost.Load())
		}
	})
}

func TestWhatNoWaitingMendsEndsAWatch(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Open(t, dsn) // without tables
		if _, err := watched(bounded(t), quick, db, 0, 1); !errors.Is(err, coordd.ErrSchema) {
			t.Fatalf("without tables: got %v, want %v", err, coordd.ErrSchema)
		}
		for _, cfg := range []Config{{Poll: -1}, {Timeout: time.Millisecond}} {
			if _, err := watched(bounded(t), cfg, db, 0, 1); !errors.Is(err, coordd.ErrInvalid) {
				t.Fatalf("%+v: got %v, want %v", cfg, err, coordd.ErrInvalid)
			}
		}
		if _, err := watched(bounded(t), quick, db, -1, 1); !errors.Is(err, coordd.ErrInvalid) {
			t.Fatalf("from -1: got %v, want %v", err, coordd.ErrInvalid)
		}
		for _, limit := range []int{-1, 0, MaxList + 1} {
			if _, err := List(t.Context(), db, 0, limit); !errors.Is(err, coordd.ErrInvalid) {
				t.Fatalf("limit %d: got %v, want %v", limit, err, coordd.ErrInvalid)
			}
		}
	})
}

func TestAWatchEndsWithItsContext(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		appended(ctx, t, db, "a", "1", "2")
		n := 0
		for _, err := range quick.Watch(ctx, db, 0) {
			if n++; err != nil {
				t.Fatal(err)
			}
			cancel()
		}
		if n != 1 {
			t.Fatalf("got %d events, want 1: the context has ended with it", n)
		}
	})
}

func TestCompactSaysWhatIsGone(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		for range 3 {
			err := db.Tx(t.Context(), func(tx coordd.Queries) error {
				return journal.Append(t.Context(), tx, journal.Event{Topic: "thing", Subject: "x", Action: "changed", Data: "{}"})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if n, err := Compact(t.Context(), db, time.Hour); n != 0 || err != nil {
			t.Fatalf("within the hour: got %d and %v, want 0", n, err)
		}
		if n, err := Compact(t.Context(), db, -time.Minute); n != 3 || err != nil {
			t.Fatalf("after it: got %d and %v, want 3", n, err)
		}
		for _, err := range Watch(t.Context(), db, 0) {
			if !errors.Is(err, ErrCompacted) {
				t.Fatalf("a watch from the beginning: got %v, want %v", err, ErrCompacted)
			}
		}
	})
}
