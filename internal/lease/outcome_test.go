package lease

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// These are the shortest forms of what the simulation has found.

// waiters is who waits for a lease, in order.
func waiters(t *testing.T, db *coordd.DB, name string) (ids []string) {
	t.Helper()
	info, err := Inspect(t.Context(), db, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range info.Waiters {
		ids = append(ids, w.MemberID)
	}
	return ids
}

// Acquire waits out an outage also if that is there from the beginning.
func TestAnOutageMakesTheWaitLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		s := joined(t, db, "a")
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		time.AfterFunc(time.Second, func() { tap.Disturb(nil) })
		h, err := Acquire(t.Context(), s, alone)
		if err != nil {
			t.Fatal(err)
		}
		released(t, h)
	})
}

// A wait that ends while the database does not answer says so, and that it has ended.
func TestAWaitThatTheDatabaseKeptSaysSo(t *testing.T) {
	for what, wait := range map[string]struct {
		failing func(stmt string) bool
		wait    func(ctx context.Context, s *heartbeat.Session, fail func()) error
	}{
		"from the start": {func(stmt string) bool { return !isBeat(stmt) }, func(ctx context.Context, s *heartbeat.Session, fail func()) error {
			fail()
			_, err := Acquire(ctx, s, Want{Name: "lock/free"})
			return err
		}},
		"with a place in the queue": {isRead, func(ctx context.Context, s *heartbeat.Session, fail func()) error {
			time.AfterFunc(time.Second, fail)
			_, err := Acquire(ctx, s, alone)
			return err
		}},
		"at each grant": {isGrant, func(ctx context.Context, s *heartbeat.Session, fail func()) error {
			fail()
			_, err := Try(ctx, s, Want{Name: "lock/free"})
			return err
		}},
		"at a grant, and when it is to be settled": {func(stmt string) bool { return isGrant(stmt) || isSupersede(stmt) }, func(ctx context.Context, s *heartbeat.Session, fail func()) error {
			fail()
			_, err := Try(ctx, s, Want{Name: "lock/free"})
			return err
		}},
		"for a release": {func(stmt string) bool { return !isBeat(stmt) }, func(ctx context.Context, s *heartbeat.Session, fail func()) error {
			time.AfterFunc(time.Second, fail)
			return Release(ctx, of(s).DB, Ask{Name: alone.Name, By: "b", Within: time.Minute})
		}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				quick, db, tap := dbtest.VirtualTime(t)
				holder := tried(t, joined(t, quick, "a"), alone)
				s := joined(t, db, "b")
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				err := wait.wait(ctx, s, func() {
					tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
						if wait.failing(stmt) {
							return dbtest.ErrReplyLost
						}
						return do()
					})
				})
				tap.Disturb(nil)
				if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coordd.ErrUnreachable) {
					t.Errorf("got %v, want %v and %v", err, context.DeadlineExceeded, coordd.ErrUnreachable)
				}
				released(t, holder)
			})
		})
	}
}

// Who waits for others to obey is told at once what no waiting mends.
func TestNoReleaseIsWaitedForThatCannotBeSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		tried(t, joined(t, db, "a"), alone)
		time.AfterFunc(time.Second, func() {
			if _, err := db.Exec(t.Context(), `alter table coordd_leases rename to elsewhere`); err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		err := Release(t.Context(), db, Ask{Name: alone.Name, By: "b", Within: time.Minute})
		if took := time.Since(began); !errors.Is(err, coordd.ErrSchema) || took > 2*time.Second {
			t.Fatalf("after %v got %v, want %v", took, err, coordd.ErrSchema)
		}
	})
}

// What is wrong from the start is told at once, and not waited for.
func TestAMistakeIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, db, _ := dbtest.VirtualTime(t)
		s := joined(t, db, "a")
		if _, err := quick.Exec(t.Context(), `alter table coordd_leases rename to elsewhere`); err != nil {
			t.Fatal(err)
		}
		if _, err := Acquire(t.Context(), s, alone); !errors.Is(err, coordd.ErrSchema) {
			t.Fatalf("got %v, want %v", err, coordd.ErrSchema)
		}
	})
}

// A waiter is granted its right in the moment in which its session is suspended. It gives the
// right back, and waits on: behind the others, but not without a place.
func TestWhoseGrantCameTooLateWaitsOnWithAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, tapped, tap := dbtest.VirtualTime(t)
		late, err := heartbeat.Join(t.Context(), tapped, heartbeat.Config{Name: "late", TTL: shortTTL, Beat: shortTTL / 8})
		if err != nil {
			t.Fatal(err)
		}
		defer late.Leave(t.Context())
		first, next := joined(t, quick, "first"), joined(t, quick, "next")
		holder := tried(t, first, alone)
		acquired := waiting(t, quick, func() error { _, err := Acquire(t.Context(), late, alone); return err })
		second := make(chan *Held)
		waiting(t, quick, func() error { h, err := Acquire(t.Context(), next, alone); second <- h; return err })

		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if strings.HasPrefix(stmt, "update coordd_heartbeats") {
				return dbtest.ErrReplyLost
			}
			err := do()
			if stmt == "commit" {
				for late.Valid() {
					time.Sleep(time.Millisecond)
				}
				tap.Disturb(nil)
			}
			return err
		})
		for late.Stats().Remaining > shortTTL/8 {
			time.Sleep(time.Millisecond)
		}
		released(t, holder)
		h := <-second
		if h == nil || h.Token() != 3 {
			t.Fatalf("the next: got %+v, want token 3, after the one that came too late", h)
		}
		dbtest.Eventually(t, "a place for who came too late", func() bool {
			select {
			case err := <-acquired:
				t.Fatalf("it waits no more: %v", err)
			default:
			}
			ids := waiters(t, quick, alone.Name)
			return len(ids) == 1 && ids[0] == late.ID()
		})
		released(t, h)
		if err := <-acquired; err != nil {
			t.Fatal(err)
		}
	})
}

// Somebody asks for a right when its grant has been committed and not been answered yet. The
// session is not lost, and nobody must be told so.
func TestWhatIsAskedForBeforeItIsHadIsHeldByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, tapped, tap := dbtest.VirtualTime(t)
		s := joined(t, tapped, "a")
		tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
			err := do()
			if strings.HasPrefix(stmt, "update coordd_leases set holder") {
				tap.Disturb(nil)
				if _, err := put(ctx, quick, Ask{Name: alone.Name, By: "b", Reason: "c"}); err != nil {
					t.Error(err)
				}
				of(s).sweep(ctx)
			}
			return err
		})
		h, err := Try(t.Context(), s, alone)
		var by *RequestedError
		if !errors.Is(err, coordd.ErrHeld) || errors.Is(err, coordd.ErrLost) || !errors.As(err, &by) || by.By != "b" || by.Reason != "c" {
			t.Fatalf("got %v, %v, want %v, and that b asked for it because of c", h, err, coordd.ErrHeld)
		}
		released(t, tried(t, s, alone))
	})
}
