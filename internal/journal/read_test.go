package journal_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

func loseCommits(_ context.Context, stmt string, do func() error) error {
	err := do()
	if stmt == "commit" && err == nil {
		return dbtest.ErrReplyLost
	}
	return err
}

func TestReadTakesPagesAndTopics(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		err := db.Tx(t.Context(), func(tx coordd.Queries) error {
			return journal.Append(t.Context(), tx,
				journal.Event{Topic: "a", Subject: "1", Action: "x", MemberID: "m", Data: `{"ä":"'\\"}`},
				journal.Event{Topic: "b", Subject: "2", Action: "x", Data: "{}"},
				journal.Event{Topic: "a", Subject: "3", Action: "x", Data: "{}"},
				journal.Event{Topic: "c", Subject: "4", Action: "x", Data: "{}"})
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			after  int64
			limit  int
			topics []string
			want   []string
			next   int64
		}{
			{0, 10, nil, []string{"1", "2", "3", "4"}, 4},
			{0, 2, nil, []string{"1", "2"}, 2},
			{2, 2, nil, []string{"3", "4"}, 4},
			{4, 2, nil, nil, 4},
			{0, 10, []string{"a"}, []string{"1", "3"}, 4},
			{0, 1, []string{"a"}, []string{"1"}, 1},
			{1, 10, []string{"b", "c"}, []string{"2", "4"}, 4},
			{0, 10, []string{"none"}, nil, 4},
		} {
			page, err := journal.Read(t.Context(), db.Queries, test.after, test.limit, test.topics...)
			if err != nil {
				t.Fatal(err)
			}
			if got := subjects(page.Events); !slices.Equal(got, test.want) || page.Next != test.next || page.Revision != 4 {
				t.Errorf("%+v: got %v, next %d, newest %d", test, got, page.Next, page.Revision)
			}
		}
		first := logged(t, db)[0]
		first.At = time.Time{}
		if want := (journal.Event{Revision: 1, Topic: "a", Subject: "1", Action: "x", MemberID: "m", Data: `{"ä":"'\\"}`}); first != want {
			t.Errorf("got %+v, want %+v", first, want)
		}
		if _, err := journal.Read(t.Context(), db.Queries, 5, 1); !errors.Is(err, coordd.ErrHistoryLost) {
			t.Errorf("after a revision that is not there: got %v, want %v", err, coordd.ErrHistoryLost)
		}
	})
}

func TestE2WhoIsBehindACompactionIsTold(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		appended(t, db, "1", "2", "3", "4", "5")
		if n, err := journal.Compact(t.Context(), db, journal.Retention{Age: time.Hour}); n != 0 || err != nil {
			t.Fatalf("of young events: got %d deleted and %v, want none", n, err)
		}
		if n, err := journal.Compact(t.Context(), db, journal.Retention{Count: 2}); n != 3 || err != nil {
			t.Fatalf("of all but two: got %d deleted and %v, want 3", n, err)
		}
		if n, err := journal.Compact(t.Context(), db, journal.Retention{Count: 2}); n != 0 || err != nil {
			t.Fatalf("the second time: got %d deleted and %v, want none", n, err)
		}
		for after := range int64(3) {
			if _, err := journal.Read(t.Context(), db.Queries, after, 10, "whatever"); !errors.Is(err, journal.ErrCompacted) {
				t.Errorf("after %d: got %v, want %v", after, err, journal.ErrCompacted)
			}
		}
		page, err := journal.Read(t.Context(), db.Queries, 3, 10)
		if got := subjects(page.Events); err != nil || !slices.Equal(got, []string{"4", "5"}) {
			t.Errorf("at the edge: got %v and %v, want 4 and 5", got, err)
		}
		if n, err := journal.Compact(t.Context(), db, journal.Retention{}); n != 2 || err != nil {
			t.Fatalf("of all: got %d deleted and %v, want 2", n, err)
		}
		if page, err := journal.Read(t.Context(), db.Queries, 5, 10); err != nil || len(page.Events) != 0 || page.Next != 5 {
			t.Errorf("at the end of an empty log: got %+v and %v", page, err)
		}
		appended(t, db, "6")
		if page, err := journal.Read(t.Context(), db.Queries, 5, 10); err != nil || len(page.Events) != 1 || page.Next != 6 {
			t.Errorf("after a compaction of all: got %+v and %v", page, err)
		}
	})
}

// While the database's clock was ahead for a moment events were dated in the future. They go with
// those around them, and nothing goes because of them.
func TestEventsOfTheFutureStopNoCompaction(t *testing.T) {
	dbtest.AsAdministrator(t)
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		const many = 600 // more than one compaction looks at
		for range many / 100 {
			appended(t, db, slices.Repeat([]string{"x"}, 100)...)
		}
		dated := func(age time.Duration, from, to int64) {
			t.Helper()
			n, err := db.Exec(t.Context(), `update coordd_events set at_us = {now} - ? where revision between ? and ?`, age.Microseconds(), from, to)
			if err != nil || n != to-from+1 {
				t.Fatalf("got %d rows, %v", n, err)
			}
		}
		compacts := func(want ...int64) {
			t.Helper()
			for _, n := range want {
				if got, err := journal.Compact(t.Context(), db, journal.Retention{Age: time.Hour}); got != n || err != nil {
					t.Fatalf("got %d deleted and %v, want %d", got, err, n)
				}
			}
		}
		const year = 365 * 24 * time.Hour
		dated(2*time.Hour, 1, many)
		dated(-year, 1, many-10) // the clock was ahead for a while, and
		dated(0, many-5, many)   // the last ones are young
		compacts(500, many-500-6, 0)
		dated(-year, many-5, many) // all that are left: the clock may be behind now
		compacts(0)
		dated(0, many-3, many-3) // a beginning of the log, and not all but this one
		dated(2*time.Hour, many-2, many)
		compacts(0)
		dated(-30*time.Minute, many-5, many-5) // it may be as old as it says
		dated(2*time.Hour, many-4, many)
		compacts(0)
		dated(-year, many-5, many-5)
		compacts(6, 0)
	})
}

// A reader never takes what a compaction has just deleted for the end, or for a gap.
func TestE2CompactionIsNeverTakenForAGap(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		const writes = 150
		written := make(chan struct{})
		var total, read atomic.Int64 // the writer goes on until the reader has got something
		var group sync.WaitGroup
		group.Go(func() {
			defer close(written)
			for i := 0; i < writes || read.Load() == 0 && i < 100*writes; i++ {
				appended(t, db, fmt.Sprint(i, "a"), fmt.Sprint(i, "b"))
				total.Add(2)
			}
		})
		var deleted [2]int64
		for i := range deleted {
			group.Go(func() {
				for !closed(written) {
					n, err := journal.Compact(t.Context(), db, journal.Retention{Count: 3})
					if err != nil {
						t.Error(err)
						return
					}
					deleted[i] += n
				}
			})
		}
		defer group.Wait()
		var compacted int
		for after := int64(0); !closed(written) || after < total.Load(); {
			page, err := journal.Read(t.Context(), db.Queries, after, 2)
			if errors.Is(err, journal.ErrCompacted) {
				compacted++
				if after, err = journal.Revision(t.Context(), db.Queries); err == nil {
					continue
				}
			}
			if err != nil {
				t.Error(err)
				break
			}
			for _, e := range page.Events {
				if after++; e.Revision != after {
					t.Fatalf("got revision %d, want %d", e.Revision, after)
				}
				read.Add(1)
			}
			if page.Next != after {
				t.Fatalf("next: got %d, want %d", page.Next, after)
			}
		}
		group.Wait()
		t.Logf("%d events were read, %d times the reader was told that it was behind, %v were deleted", read.Load(), compacted, deleted)
		if read.Load() == 0 || deleted[0]+deleted[1] < writes {
			t.Fatalf("got %d read and %v deleted, want more of both", read.Load(), deleted)
		}
	})
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestMissingCountersAreAFaultOfTheSchema(t *testing.T) {
	dbtest.AsAdministrator(t)
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		if _, err := db.Exec(t.Context(), `delete from coordd_meta where name = 'compacted'`); err != nil {
			t.Fatal(err)
		}
		if _, err := journal.Read(t.Context(), db.Queries, 0, 1); !errors.Is(err, coordd.ErrSchema) {
			t.Errorf("without the row of compactions: got %v, want %v", err, coordd.ErrSchema)
		}
		if _, err := db.Exec(t.Context(), `delete from coordd_meta where name = 'revision'`); err != nil {
			t.Fatal(err)
		}
		if _, err := journal.Revision(t.Context(), db.Queries); !errors.Is(err, coordd.ErrSchema) {
			t.Errorf("without the row of revisions: got %v, want %v", err, coordd.ErrSchema)
		}
		err := db.Tx(t.Context(), func(tx coordd.Queries) error { return journal.Append(t.Context(), tx, event("a")) })
		if !errors.Is(err, coordd.ErrSchema) {
			t.Errorf("append: got %v, want %v", err, coordd.ErrSchema)
		}
	})
}
