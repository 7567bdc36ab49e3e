package lease

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// A request that reaches a right whose session is suspended holds when that is connected again.
func TestWhatWasAskedForIsNotTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, tapped, tap := dbtest.VirtualTime(t)
		s := joined(t, tapped, "a")
		h := tried(t, s, alone)
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if isBeat(stmt) {
				return dbtest.ErrReplyLost
			}
			return do()
		})
		<-h.Context().Done()
		if _, err := put(t.Context(), quick, Ask{Name: alone.Name, By: "b", Reason: "c"}); err != nil {
			t.Fatal(err)
		}
		of(s).sweep(t.Context())
		if cause := context.Cause(h.Context()); !errors.Is(cause, heartbeat.ErrSuspended) {
			t.Fatalf("got %v, want %v", cause, heartbeat.ErrSuspended)
		}
		tap.Disturb(nil)
		dbtest.Eventually(t, "a session that is connected again", s.Valid)
		if again, ok, err := h.Resume(t.Context()); ok || err != nil {
			t.Fatalf("got %v, %v, %v, want nothing", again, ok, err)
		}
		released(t, h)
	})
}

func TestAHolderHasFifteenSecondsUnlessOthersAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		brief(t, db, "who sees it dead")
		h := tried(t, brief(t, db, "a"), alone)
		ask := Ask{Name: alone.Name, By: "b", Reason: "c", Within: -1}
		if err := Release(t.Context(), db, ask); !errors.Is(err, coordd.ErrInvalid) || h.Context().Err() != nil {
			t.Fatalf("got %v, and the right has ended because of %v, want %v", err, context.Cause(h.Context()), coordd.ErrInvalid)
		}
		ask.Within = 0
		began := time.Now()
		if err := Release(t.Context(), db, ask); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 15*time.Second || took > 15*time.Second+2*shortTTL {
			t.Errorf("who does not obey had it for %v, want 15s and a little more than the TTL", took)
		}
	})
}
