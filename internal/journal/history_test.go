package journal_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

// entered enters the history, as a member that joins.
func entered(t *testing.T, db *coordd.DB) journal.History {
	t.Helper()
	h, _, err := journal.EnterHistory(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// fake puts another fingerprint into the place of the accepted one, as a database has it that
// came from another server.
func fake(t *testing.T, db *coordd.DB) {
	t.Helper()
	if n, err := db.Exec(t.Context(), `update coordd_meta set text = 'elsewhere' where name = 'history'`); err != nil || n != 1 {
		t.Fatalf("got %d rows, %v", n, err)
	}
}

func floorOf(t *testing.T, db *coordd.DB) (floor int64) {
	t.Helper()
	var highest int64
	if err := db.Get(t.Context(), []any{&floor, &highest}, journal.StmtFloor); err != nil {
		t.Fatal(err)
	}
	return floor
}

func TestANewDatabaseHasOneHistory(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		// As goose's own command leaves it: migrations.Up has accepted it.
		if n, err := db.Exec(t.Context(), `update coordd_meta set value = 0, text = '' where name = 'history'`); err != nil || n != 1 {
			t.Fatalf("got %d rows, %v", n, err)
		}
		var all [8]journal.History
		var group errgroup.Group
		for i := range all {
			group.Go(func() (err error) {
				all[i], _, err = journal.EnterHistory(t.Context(), db)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		for _, h := range all {
			if h != all[0] || h.Number() == 0 || h.Quarantined() || !h.Intact() || h.Accepted() == "" || h.Since != 0 {
				t.Fatalf("got %+v, want the accepted one of all, %+v", h, all[0])
			}
		}
		if floor := floorOf(t, db); floor != 0 {
			t.Fatalf("the floor of a new database: got %d, want 0", floor)
		}
	})
}

func TestALostHistoryIsRecordedOnce(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		before := entered(t, db)
		appended(t, db, "a", "b")
		fake(t, db)
		if _, err := journal.Read(ctx, db.Queries, 1, 10); !errors.Is(err, coordd.ErrHistoryLost) {
			t.Fatalf("before anybody has recorded it: got %v, want %v", err, coordd.ErrHistoryLost)
		}
		lost, err := journal.ReadHistory(ctx, db.Queries)
		if err != nil || lost.Intact() {
			t.Fatalf("got %+v, %v, want another fingerprint", lost, err)
		}
		var renewed atomic.Int32
		var group errgroup.Group
		for range 8 {
			group.Go(func() error {
				mine, err := journal.Renew(ctx, db, lost, 0, 0)
				if mine {
					renewed.Add(1)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		after := entered(t, db)
		switch {
		case renewed.Load() != 1:
			t.Fatalf("recorded %d times, want once", renewed.Load())
		case after.Number() == before.Number() || !after.Quarantined() || !after.Intact():
			t.Fatalf("got %+v, want a new one in quarantine", after)
		case after.Since <= before.Revision || after.Revision != after.Since+1:
			t.Fatalf("got revision %d of a history since %d, want it to go on above all that was", after.Revision, after.Since)
		case floorOf(t, db) < journal.Step || floorOf(t, db) > 1<<53:
			t.Fatalf("floor: got %d, want it raised, below 2^53", floorOf(t, db))
		}
		// Nobody goes on where he was; who begins anew does.
		for _, seen := range []int64{1, 2, after.Since - 1} {
			if _, err := journal.Read(ctx, db.Queries, seen, 10); !errors.Is(err, coordd.ErrHistoryLost) {
				t.Fatalf("after revision %d: got %v, want %v", seen, err, coordd.ErrHistoryLost)
			}
		}
		page, err := journal.Read(ctx, db.Queries, after.Since, 10)
		if err != nil || len(page.Events) != 1 || page.Events[0].Action != "quarantined" {
			t.Fatalf("got %+v, %v, want the event that tells of it", page.Events, err)
		}
	})
}

func TestAQuarantineIsEndedOnceAndInItsOwnHistory(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		first := entered(t, db)
		holds := func(want bool, what, condition string, number int64) {
			t.Helper()
			var n int
			if err := db.Get(ctx, []any{&n}, `select count(*) from coordd_meta where name = 'revision' and `+condition, number); err != nil {
				t.Fatal(err)
			}
			if n == 1 != want {
				t.Fatalf("%s: got %v, want %v", what, n == 1, want)
			}
		}
		holds(true, "a beat", journal.InHistory, first.Number())
		holds(true, "a grant", journal.Trusted, first.Number())
		if _, err := journal.Renew(ctx, db, first, 0, 0); err != nil {
			t.Fatal(err)
		}
		second := entered(t, db)
		holds(false, "a beat of the old history", journal.InHistory, first.Number())
		holds(false, "a grant of the old history", journal.Trusted, first.Number())
		holds(true, "a beat in quarantine", journal.InHistory, second.Number())
		holds(false, "a grant in quarantine", journal.Trusted, second.Number())
		fake(t, db)
		if trusted, err := journal.Trust(ctx, db, second); trusted || err != nil {
			t.Fatalf("in another history: got %v, %v, want it to stay", trusted, err)
		}
		holds(false, "a beat elsewhere", journal.InHistory, second.Number())
		third := entered(t, db) // records it
		if trusted, err := journal.Trust(ctx, db, second); trusted || err != nil {
			t.Fatalf("of the history before: got %v, %v, want it to stay", trusted, err)
		}
		for _, want := range []bool{true, false} {
			if trusted, err := journal.Trust(ctx, db, third); trusted != want || err != nil {
				t.Fatalf("got %v, %v, want %v", trusted, err, want)
			}
		}
		holds(true, "a grant when it is trusted", journal.Trusted, third.Number())
		if floors := [2]int64{third.Since, second.Since}; floors[0] < floors[1]+journal.Step {
			t.Fatalf("floors: got %d after %d, want it raised", floors[0], floors[1])
		}
	})
}
