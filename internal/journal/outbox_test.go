package journal

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
)

// E1
func TestTheOutboxComesIntoTheLogInOrder(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		var want []string
		for i := range batch + 7 { // more than one drain takes
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

// E1
func TestARolledBackTransactionLeavesNoEvent(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		err := db.Tx(t.Context(), func(tx coordd.Queries) error {
			return errors.Join(Append(t.Context(), tx, event("appended")), errRolledBack)
		})
		if !errors.Is(err, errRolledBack) {
			t.Fatalf("got %v, want %v", err, errRolledBack)
		}
		tx := begun(t, db)
		if err := Outbox(t.Context(), db.On(tx), event("posted")); err != nil {
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

// E1: a user who leaves a transaction open holds up nobody else's events, and has his own
// recorded after his commit.
func TestAnOpenTransactionDelaysNobody(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		if product, _ := db.Product(t.Context()); product == "SQLite" {
			t.Skip("SQLite has one writer: an open transaction delays everybody, whatever it writes")
		}
		tx := begun(t, db)
		if err := Outbox(t.Context(), db.On(tx), event("slow")); err != nil {
			t.Fatal(err)
		}
		appended(t, db, "appended")
		posted(t, db, "posted")
		if n := drained(t, db); n != 1 {
			t.Fatalf("drained beside the open transaction: got %d, want 1", n)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if n := drained(t, db); n != 1 {
			t.Fatalf("drained after its commit: got %d, want 1", n)
		}
		if got := subjects(logged(t, db)); !slices.Equal(got, []string{"appended", "posted", "slow"}) {
			t.Fatalf("got %v, want appended, posted, slow", got)
		}
	})
}

// E1
func TestConcurrentDrainsRecordEachEventOnce(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		var want []string
		for i := range 3 * batch {
			want = append(want, fmt.Sprintf("event-%04d", i))
		}
		posted(t, db, want...)
		var group sync.WaitGroup
		var moved [4]int
		for i := range moved {
			group.Go(func() {
				// A drain that others were quicker at moves nothing, though more is there.
				for {
					n, err := Drain(t.Context(), db)
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

// E1: a commit whose reply was lost is not done again.
func TestADrainThatWasNotAnsweredIsNotRepeated(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		cut, tap := dbtest.OpenTapped(t, dsn)
		cut.Pool().SetMaxOpenConns(1)
		posted(t, db, "a", "b")
		tap.Disturb(loseCommits)
		if moved, err := Drain(t.Context(), cut); moved != 0 || !errors.Is(err, coordd.ErrUnknownOutcome) {
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
