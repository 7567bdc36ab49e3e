package events

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd/internal/dbtest"
)

// An idle watch costs one statement a second.
func TestAnIdleWatchCostsOneStatementASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		before := tap.Statements()
		for e, err := range Watch(ctx, db, 0) {
			t.Errorf("got %v and %v, want nothing", e, err)
		}
		if got := tap.Statements() - before; got < 3500 || got > 3610 {
			t.Fatalf("in an hour: got %d statements, want 3600", got)
		}
	})
}

// An event is seen within a second, and the next ones sooner; after an outage of an hour
// within a few.
func TestE2AnEventIsSeenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, tapped, tap := dbtest.VirtualTime(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		seen := make(chan Event)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e, err := range Watch(ctx, tapped, 0) {
				if err != nil {
					t.Error(err)
					return
				}
				seen <- e
			}
		}()
		within := func(bound time.Duration, what string) {
			t.Helper()
			began := time.Now()
			appended(ctx, t, db, "a", what)
			if e := <-seen; e.Subject != what || time.Since(began) > bound {
				t.Errorf("got %s after %v, want %s within %v", e.Subject, time.Since(began), what, bound)
			}
		}
		for range dbtest.Runs(50) {
			time.Sleep(time.Minute + 333*time.Millisecond)
			within(time.Second, "idle")
			within(130*time.Millisecond, "soon after")
			tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
			time.Sleep(time.Hour)
			tap.Disturb(nil)
			within(slowest*5/4, "after an outage")
		}
		cancel()
		<-done
	})
}

// A database that never answers is asked again.
func TestAStatementThatIsNeverAnsweredIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, tapped, tap := dbtest.VirtualTime(t)
		appended(t.Context(), t, db, "a", "1")
		silence := true
		tap.Disturb(func(ctx context.Context, _ string, do func() error) error {
			if !silence {
				return do()
			}
			silence = false
			return dbtest.Pause(ctx, time.Hour)
		})
		began := time.Now()
		if _, err := watched(t.Context(), Config{}, tapped, 0, 1); err != nil || time.Since(began) > 6*time.Second {
			t.Fatalf("got %v after %v, want the event within 6s", err, time.Since(began))
		}
	})
}
