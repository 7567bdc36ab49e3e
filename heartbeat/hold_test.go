package heartbeat

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/dbtest"
)

// L4: what hangs on a session ends before its deadline, with no network and no database.
func TestAHoldEndsAtTheDeadlineWithoutADatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		s := joined(t, db, Config{Name: "a"})
		for range dbtest.Runs(20) {
			time.Sleep(seconds(10))
			held, release, err := s.Hold(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tap.Disturb(func(ctx context.Context, _ string, _ func() error) error {
				return dbtest.Pause(ctx, time.Hour) // no answer ever
			})
			<-held.Done()
			if cause := context.Cause(held); !errors.Is(cause, ErrSuspended) {
				t.Fatalf("cause: got %v, want %v", cause, ErrSuspended)
			}
			s.mu.Lock()
			late := s.now() - s.validUntil
			s.mu.Unlock()
			if late != 0 || s.Valid() || s.Status() != Suspended {
				t.Fatalf("got valid %v, %s, %v after the deadline, want suspended at it", s.Valid(), s.Status(), late)
			}
			if _, _, err := s.Hold(t.Context()); !errors.Is(err, ErrSuspended) {
				t.Fatalf("a hold on a suspended session: got %v, want %v", err, ErrSuspended)
			}
			release()
			release()
			tap.Disturb(nil)
			for range s.States(t.Context()) {
				if s.Valid() {
					break // connected again
				}
			}
			if held.Err() == nil {
				t.Fatal("what was held came back")
			}
		}
	})
}

// A process that thaws after its deadline may have its late beat answered before anything else
// runs. The session goes on, as nobody has declared it dead; what it held does not.
func TestALateBeatGivesBackNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		var frozen atomic.Int64
		now := func() time.Duration { return clock.Now() + time.Duration(frozen.Load()) }
		s, err := Join(clock.With(t.Context(), now), db, Config{Name: "a"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Leave(t.Context())
		held, release, err := s.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		frozen.Store(int64(s.cfg.TTL))
		s.beat()
		if !s.Valid() {
			t.Fatalf("the session: got %s, want %s", s.Status(), Connected)
		}
		if cause := context.Cause(held); !errors.Is(cause, ErrSuspended) {
			t.Fatalf("what it held: got %v, want it ended by %v", cause, ErrSuspended)
		}
	})
}

func TestStatesTellEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, db, tap := dbtest.VirtualTime(t)
		s := joined(t, db, Config{Name: "a"})
		var seen []Status
		done := make(chan struct{})
		go func() {
			defer close(done)
			for status := range s.States(t.Context()) {
				seen = append(seen, status)
			}
		}()
		time.Sleep(time.Minute)
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		time.Sleep(time.Minute)
		tap.Disturb(nil)
		time.Sleep(time.Minute)
		declareDead(t, quick, s.ID())
		<-done
		if want := []Status{Connected, Suspended, Connected, Over}; !slices.Equal(seen, want) {
			t.Fatalf("got %v, want %v", seen, want)
		}
	})
}

func TestLeaveWaitsForWhatIsHeld(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		s := joined(t, db, Config{Name: "a"})
		held, release, err := s.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var returned atomic.Bool
		go func() {
			<-held.Done() // the work notices, and takes its time
			if cause := context.Cause(held); !errors.Is(cause, ErrLeft) {
				t.Errorf("cause: got %v, want %v", cause, ErrLeft)
			}
			if got := stateOf(t, db, s.ID()); got != Alive || s.Valid() {
				t.Errorf("while the work still runs: got %s, valid %v, want %s and not valid", got, s.Valid(), Alive)
			}
			returned.Store(true)
			release()
		}()
		if err := s.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !returned.Load() || stateOf(t, db, s.ID()) != Left {
			t.Fatalf("got %s, work returned %v, want %s after it", stateOf(t, db, s.ID()), returned.Load(), Left)
		}
	})
}

func TestWhatIsNotReleasedIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		s := joined(t, db, Config{Name: "a"})
		_, release, err := s.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		began := time.Now()
		if err := s.Leave(t.Context()); err == nil {
			t.Fatal("leave: got no error, want one")
		}
		if took := time.Since(began); took > DefaultTTL+3*s.cfg.Timeout || stateOf(t, db, s.ID()) != Alive {
			t.Fatalf("got %s after %v, want %s for others to watch", stateOf(t, db, s.ID()), took, Alive)
		}
	})
}

func TestALostSessionHoldsNothing(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		s := joined(t, db, Config{Name: "a", TTL: shortTTL})
		held, release, err := s.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		declareDead(t, db, s.ID())
		within(t, held.Done(), "the held context ended")
		if cause := context.Cause(held); !errors.Is(cause, coordd.ErrLost) && !errors.Is(cause, ErrSuspended) {
			t.Fatalf("cause: got %v, want %v", cause, coordd.ErrLost)
		}
		within(t, s.Done(), "the session lost")
		if _, _, err := s.Hold(t.Context()); !errors.Is(err, coordd.ErrLost) {
			t.Fatalf("a hold on a lost session: got %v, want %v", err, coordd.ErrLost)
		}
	})
}
