package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// waiting starts an Acquire, and returns once it stands in the queue.
func waiting(t *testing.T, db *coordd.DB, acquire func() error) (done <-chan error) {
	t.Helper()
	count := func() (n int) {
		if err := db.Get(t.Context(), []any{&n}, `select count(*) from coordd_waiters`); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	result := make(chan error, 1)
	go func() { result <- acquire() }()
	dbtest.Eventually(t, "another waiter", func() bool {
		if len(result) > 0 {
			t.Fatalf("it did not wait: %v", <-result)
		}
		return count() == before+1
	})
	return result
}

func TestThoseWhoWaitTakeTurns(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		holder := tried(t, joined(t, db, "holder"), alone)
		var mu sync.Mutex
		var order []string
		var all []<-chan error
		for _, name := range []string{"first", "second", "third"} {
			s := joined(t, db, name)
			all = append(all, waiting(t, db, func() error {
				h, err := Acquire(t.Context(), s, alone)
				if err != nil {
					return err
				}
				mu.Lock()
				order = append(order, fmt.Sprint(name, h.Token()))
				mu.Unlock()
				return h.Release(t.Context())
			}))
		}
		// Who does not wait in line does not get in between.
		released(t, holder)
		for _, done := range all {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if want := "[first2 second3 third4]"; fmt.Sprint(order) != want {
			t.Fatalf("got %v, want %v", order, want)
		}
		var left int
		if err := db.Get(t.Context(), []any{&left}, `select count(*) from coordd_waiters`); err != nil || left != 0 {
			t.Fatalf("got %d waiters left, %v", left, err)
		}
	})
}

func TestOneWhoGivesUpLeavesTheQueue(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b := joined(t, db, "a"), joined(t, db, "b")
		holder := tried(t, a, alone)
		ctx, cancel := context.WithCancel(t.Context())
		gone := waiting(t, db, func() error { _, err := Acquire(ctx, b, alone); return err })
		next := waiting(t, db, func() error {
			h, err := Acquire(t.Context(), a, alone)
			if err == nil {
				err = h.Release(t.Context())
			}
			return err
		})
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
		released(t, holder)
		if err := <-next; err != nil {
			t.Fatal(err)
		}
	})
}

func TestADeadHoldersRightGoesToTheNext(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b := joined(t, db, "a"), joined(t, db, "b")
		tried(t, a, alone)
		next := waiting(t, db, func() error {
			h, err := Acquire(t.Context(), b, alone)
			if err == nil && h.Token() != 2 {
				err = fmt.Errorf("token: got %d, want 2", h.Token())
			}
			return err
		})
		if n, err := db.Exec(t.Context(), `update coordd_heartbeats set state = 'dead' where member_id = ?`, a.ID()); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if err := <-next; err != nil {
			t.Fatal(err)
		}
	})
}

func TestAFrozenFirstInLineIsPassedOver(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, frozen, b := joined(t, db, "a"), joined(t, db, "frozen"), joined(t, db, "b")
		holder := tried(t, a, alone)
		// It stands in line and looks at nothing.
		if err := of(frozen).enqueue(t.Context(), alone, "frozen"); err != nil {
			t.Fatal(err)
		}
		of(frozen).stand("frozen")
		next := waiting(t, db, func() error { _, err := Acquire(t.Context(), b, alone); return err })
		released(t, holder)
		if err := <-next; err != nil {
			t.Fatal(err)
		}
	})
}

// A writer that waits for readers is not overlooked, however long they read: others that would
// read come after it.
func TestAWaitingWriterIsNotPassedByReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		reader, writer, late := joined(t, db, "reader"), joined(t, db, "writer"), joined(t, db, "late")
		shared := Want{Name: alone.Name, Limit: Unlimited}
		reading := tried(t, reader, shared)
		got := make(chan *Held, 2)
		acquire := func(s *heartbeat.Session, w Want) func() error {
			return func() error {
				h, err := Acquire(t.Context(), s, w)
				got <- h
				return err
			}
		}
		waiting(t, db, acquire(writer, alone))
		waiting(t, db, acquire(late, shared))
		time.Sleep(time.Minute)
		if len(got) > 0 {
			t.Fatalf("%s has it, behind a writer that waits", (<-got).k.session.Name())
		}
		for _, next := range []*heartbeat.Session{writer, late} {
			released(t, reading)
			if reading = <-got; reading == nil || reading.k.session != next {
				t.Fatalf("the next: got %+v, want %s", reading, next.Name())
			}
		}
		released(t, reading)
	})
}

// How long the first in line has let the right lie is counted from when it could have it, as far
// as the next one knows: not through an outage, nor while nothing is granted.
func TestNobodyIsOverlookedWhoCannotHaveIt(t *testing.T) {
	for what, prevent := range map[string]func(t *testing.T, quick *coordd.DB, tap *dbtest.Tap) (end func()){
		"an outage": func(_ *testing.T, _ *coordd.DB, tap *dbtest.Tap) func() {
			tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
				if isRead(stmt) {
					return dbtest.ErrReplyLost
				}
				return do()
			})
			return func() { tap.Disturb(nil) }
		},
		"a quarantine": func(t *testing.T, quick *coordd.DB, _ *dbtest.Tap) func() {
			turn := func() {
				if n, err := quick.Exec(t.Context(), `update coordd_meta set value = -value where name = 'history'`); n != 1 || err != nil {
					t.Fatal(n, err)
				}
			}
			turn()
			return turn
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				quick, tapped, tap := dbtest.VirtualTime(t)
				a, frozen, b := joined(t, quick, "a"), joined(t, quick, "frozen"), joined(t, tapped, "b")
				holder := tried(t, a, alone)
				of(frozen).stand("frozen")
				if err := of(frozen).enqueue(t.Context(), alone, "frozen"); err != nil {
					t.Fatal(err)
				}
				next := waiting(t, quick, func() error { _, err := Acquire(t.Context(), b, alone); return err })
				released(t, holder)
				time.Sleep(overlooked / 2) // it has seen it lie
				end := prevent(t, quick, tap)
				time.Sleep(10 * overlooked)
				end()
				began := time.Now()
				if err := <-next; err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took < overlooked || took > 3*overlooked {
					t.Errorf("it was passed after %v, want %v and a little more", took, overlooked)
				}
			})
		})
	}
}

// What ended while it waited is cleared away, so that a release costs one statement again, also
// where somebody else always waits.
func TestThoseWhoEndWaitingLeaveNothingBehind(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b, c := joined(t, db, "a"), joined(t, db, "b"), joined(t, db, "c")
		for _, others := range []bool{false, true} {
			holder := tried(t, a, alone)
			for i := range 3 { // as rows of members that have ended, or are long forgotten
				if err := of(b).enqueue(t.Context(), alone, fmt.Sprint("ended ", others, i)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := db.Exec(t.Context(), `update coordd_waiters set member_id = 'nobody'`); err != nil {
				t.Fatal(err)
			}
			var next <-chan error
			if others {
				next = waiting(t, db, func() error {
					h, err := Acquire(t.Context(), c, alone)
					if err == nil {
						err = h.Release(t.Context())
					}
					return err
				})
			}
			released(t, holder)
			if others {
				if err := <-next; err != nil {
					t.Fatal(err)
				}
			}
			var left int
			if err := db.Get(t.Context(), []any{&left}, `select count(*) from coordd_waiters`); err != nil || left != 0 {
				t.Fatalf("others wait %v: got %d waiters left, %v", others, left, err)
			}
		}
	})
}

// Somebody's turn comes at the moment at which its session is suspended: it goes on waiting, in
// the queue.
func TestOneWhoseTurnCameTooLateWaitsOn(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		other := dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		quick, blind := dbtest.OpenTapped(t, dsn)
		blind.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if isLook(stmt) {
				return dbtest.ErrReplyLost // so that nobody declares anybody dead
			}
			return do()
		})
		a, b, c := joined(t, quick, "a"), joinedWith(t, db, heartbeat.Config{Name: "b", TTL: min(3*shortTTL, patientTTL)}), joined(t, quick, "c")
		holder := tried(t, a, alone)
		got := make(chan *Held, 2)
		acquire := func(s *heartbeat.Session) func() error {
			return func() error {
				h, err := Acquire(t.Context(), s, alone)
				got <- h
				return err
			}
		}
		first := waiting(t, other, acquire(b))
		second := waiting(t, other, acquire(c))
		var leaving atomic.Bool // the statement before the commit of its grant
		tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
			switch {
			case isBeat(stmt):
				<-ctx.Done()
				return ctx.Err()
			case strings.Contains(stmt, "delete from coordd_waiters"):
				leaving.Store(true)
			case stmt == "commit" && leaving.Load():
				err := do()
				for b.Valid() {
					time.Sleep(5 * time.Millisecond)
				}
				tap.Disturb(nil)
				return err
			}
			return do()
		})
		released(t, holder)
		h := <-got
		if err := <-second; err != nil || h.k.session != c {
			t.Fatalf("who had it next: got %s, %v, want c", h.k.session.Name(), err)
		}
		dbtest.Eventually(t, "b in the queue", func() bool {
			info, err := Inspect(t.Context(), other, alone.Name)
			return err == nil && len(info.Waiters) == 1 && info.Waiters[0].MemberID == b.ID()
		})
		released(t, h)
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		released(t, <-got)
	})
}
