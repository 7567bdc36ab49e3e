package journal_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

func TestE1TheOutboxComesIntoTheLogInOrder(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		var want []string
		for i := range journal.Batch + 7 { // more than one drain takes
			want = append(want, fmt.Sprint("event-", i))
		}
		posted(t, db, want...)
		if got := logged(t, db); len(got) != 0 {
			t.Fatalf("before a drain: got %d events, want none", len(got))
		}
		if got := drained(t, db); got != len(want) {
			t.Fatalf("drained: got %d, want %d", got, len(want))
		}
		events := logged(t, db)
		if got := subjects(events); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if age := time.Since(events[0].At); age < -time.Minute || age > time.Minute {
			t.Fatalf("at: got %v ago, want now", age)
		}
	})
}

func TestE1ARolledBackTransactionLeavesNoEvent(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		err := db.Tx(t.Context(), func(tx coordd.Queries) error {
			return errors.Join(journal.Append(t.Context(), tx, event("appended")), errRolledBack)
		})
		if !errors.Is(err, errRolledBack) {
			t.Fatalf("got %v, want %v", err, errRolledBack)
		}
		tx := begun(t, db)
		if err := journal.Outbox(t.Context(), db.On(tx), event("posted")); err != nil {
			t.Fatal(err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if n := drained(t, db); n != 0 {
			t.Fatalf("drained: got %d, want 0", n)
		}
		appended(t, db, "next") // and takes revision 1
		if got := subjects(logged(t, db)); !slices.Equal(got, []string{"next"}) {
			t.Fatalf("got %v, want next alone", got)
		}
	})
}

func TestE1ConcurrentDrainsRecordEachEventOnce(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		var want []string
		for i := range 3 * journal.Batch {
			want = append(want, fmt.Sprintf("event-%04d", i))
		}
		posted(t, db, want...)
		var group sync.WaitGroup
		var moved [4]int
		for i := range moved {
			group.Go(func() {
				// A drain that others were quicker at moves nothing, though more is there.
				for {
					n, err := journal.Drain(t.Context(), db)
					if err != nil {
						t.Error(err)
						return
					}
					moved[i] += n
					var left int
					if err := db.Get(t.Context(), []any{&left}, `select count(*) from coordd_outbox`); err != nil || left == 0 {
						return
					}
				}
			})
		}
		group.Wait()
		if sum := moved[0] + moved[1] + moved[2] + moved[3]; sum != len(want) {
			t.Errorf("moved: got %v, want %d in all", moved, len(want))
		}
		got := subjects(logged(t, db))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("got %d events, want each of %d once", len(got), len(want))
		}
	})
}

// A commit whose reply was lost is not done again.
func TestE1ADrainThatWasNotAnsweredIsNotRepeated(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		cut, tap := dbtest.OpenTapped(t, dsn)
		cut.Pool().SetMaxOpenConns(1)
		posted(t, db, "a", "b")
		tap.Disturb(loseCommits)
		if moved, err := journal.Drain(t.Context(), cut); moved != 0 || !errors.Is(err, coordd.ErrUnknownOutcome) {
			t.Fatalf("got %d and %v, want 0 and %v", moved, err, coordd.ErrUnknownOutcome)
		}
		if n := drained(t, db); n != 0 {
			t.Fatalf("drained again: got %d, want 0", n)
		}
		if got := strings.Join(subjects(logged(t, db)), " "); got != "a b" {
			t.Fatalf("got %s, want a b", got)
		}
	})
}
