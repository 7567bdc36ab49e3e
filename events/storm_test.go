package events

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

var errRolledBack = errors.New("rolled back on purpose")

// A thousand transactions at once, of which some are rolled back, some record two
// events and some go through the outbox, while several watch.
func TestE2WatchersMissNothing(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		const writers, watchers = 20, 4
		each := dbtest.Runs(50)
		ctx := bounded(t)
		db.Pool().SetMaxIdleConns(writers + watchers + 4) // connections are not what is tested
		var written sync.WaitGroup
		for w := range writers {
			written.Go(func() {
				for i := range each {
					write(ctx, t, db, w, i)
				}
			})
		}
		drainer, drained := context.WithCancel(ctx)
		var drains sync.WaitGroup
		for range 2 {
			drains.Go(func() { drain(drainer, t, db) })
		}
		seen := make([][]Event, watchers)
		var watches sync.WaitGroup
		for i := range watchers {
			watches.Go(func() { seen[i] = follow(ctx, t, db, i == 0) })
		}
		written.Wait()
		for left := 1; left > 0 && ctx.Err() == nil; { // what the drainers have not got to yet
			if err := db.Get(ctx, []any{&left}, `select count(*) from coordd_outbox`); err != nil {
				t.Fatal(err)
			}
		}
		drained()
		drains.Wait()
		appended(ctx, t, db, "storm", last)
		watches.Wait()

		newest, err := Revision(ctx, db)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{last: 1}
		for w := range writers {
			for i := range each {
				for _, s := range subjects(w, i) {
					want[s]++
				}
			}
		}
		for _, events := range seen {
			consecutive(t, events, 0, int(newest))
			got := map[string]int{}
			for _, e := range events {
				got[e.Subject]++
			}
			for s, n := range want {
				if got[s] != n {
					t.Errorf("%s: got %d times, want %d", s, got[s], n)
				}
			}
			if len(got) != len(want) {
				t.Errorf("got %d different events, want %d", len(got), len(want))
			}
		}
	})
}

const last = "the last"

// subjects is what transaction i of writer w leaves.
func subjects(w, i int) []string {
	s := fmt.Sprintf("%d/%d", w, i)
	switch i % 10 {
	case 0:
		return nil // rolled back
	case 1:
		return []string{s, s + "+"}
	default:
		return []string{s}
	}
}

func write(ctx context.Context, t *testing.T, db *coordd.DB, w, i int) {
	var events []journal.Event
	for _, s := range subjects(w, i) {
		events = append(events, journal.Event{Topic: "storm", Subject: s, Action: "happened", Data: "{}"})
	}
	record := journal.Append
	if i%10 == 2 {
		record = journal.Outbox
	}
	err := db.Tx(ctx, func(tx coordd.Queries) error {
		if i%10 == 0 {
			gone := journal.Event{Topic: "storm", Subject: "gone", Action: "happened", Data: "{}"}
			return errors.Join(record(ctx, tx, gone), errRolledBack)
		}
		return record(ctx, tx, events...)
	})
	if err != nil && !errors.Is(err, errRolledBack) {
		t.Error(err)
	}
}

func drain(ctx context.Context, t *testing.T, db *coordd.DB) {
	for wait(ctx, quick.Poll, nil) {
		if _, err := journal.Drain(ctx, db); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}
}

// follow watches until the last event, in one go or in many.
func follow(ctx context.Context, t *testing.T, db *coordd.DB, resuming bool) (events []Event) {
	for {
		n, from := 0, int64(0) // 0: all that come
		if resuming {
			n = 1 + rand.IntN(20)
		}
		if len(events) > 0 {
			from = events[len(events)-1].Revision
		}
		for e, err := range quick.Watch(ctx, db, from) {
			if err != nil {
				t.Error(err)
				return events
			}
			events = append(events, e)
			if e.Subject == last {
				return events
			}
			if n--; n == 0 {
				break
			}
		}
		if ctx.Err() != nil {
			t.Error("the last event was not seen in time")
			return events
		}
	}
}
