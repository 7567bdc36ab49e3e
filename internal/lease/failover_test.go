package lease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

// fleet are members that take one right in turns and note each token that they are given.
type fleet struct {
	mu     sync.Mutex
	tokens []int64     // acknowledged, in their order
	when   []time.Time // before each was asked for
	lost   []error     // why sessions have ended
}

// runFleet runs members until the test ends. They join again when they are lost.
func runFleet(t *testing.T, db *coordd.DB, names ...string) *fleet {
	f := new(fleet)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, name := range names {
		running.Go(func() {
			err := heartbeat.Run(ctx, db, heartbeat.Config{Name: name, TTL: shortTTL}, func(ctx context.Context, s *heartbeat.Session) error {
				f.work(ctx, s)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return f
}

// work takes and gives back until the session ends.
func (f *fleet) work(ctx context.Context, s *heartbeat.Session) {
	for ctx.Err() == nil {
		asked := time.Now()
		if h, err := Try(ctx, s, alone); err == nil {
			f.mu.Lock()
			f.tokens, f.when = append(f.tokens, h.Token()), append(f.when, asked)
			f.mu.Unlock()
			h.Release(ctx)
		}
		sleep(ctx, 20*time.Millisecond)
	}
	if err := s.Err(); errors.Is(err, coordd.ErrLost) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lost = append(f.lost, err)
	}
}

func (f *fleet) granted() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.tokens)
}

// S1 and L1 over a failover: whether commits were lost or not, every session notices; no token
// is given twice; and grants are given again when every right from before has run out.
func TestS1AFailoverIsNoticedAndNoTokenRepeats(t *testing.T) {
	t.Parallel()
	for name, synchronous := range map[string]bool{"asynchronous": false, "synchronous": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := dbtest.StartPostgres(t, dbtest.Extra{})
			standby := dbtest.StartStandby(t, primary, synchronous)
			gate := dbtest.StartSwitch(t, primary)
			db := dbtest.Migrated(t, gate.DSN())
			if _, err := db.Exec(t.Context(), `update coordd_meta set value = ? where name = 'max_ttl'`, shortTTL.Milliseconds()); err != nil {
				t.Fatal(err)
			}
			f := runFleet(t, db, "a", "b", "c")
			dbtest.Eventually(t, "grants", func() bool { return f.granted() > 30 })
			if !synchronous {
				if err := standby.Detach(); err != nil {
					t.Fatal(err)
				}
			}
			acknowledged := f.granted()
			dbtest.Eventually(t, "grants that the standby may miss", func() bool { return f.granted() > acknowledged+30 })

			primary.Kill()
			if err := standby.Promote(); err != nil {
				t.Fatal(err)
			}
			f.mu.Lock()
			before := len(f.tokens)
			last := f.tokens[before-1]
			f.mu.Unlock()
			promoted := dbtest.Open(t, standby.DSN())
			info, err := Inspect(t.Context(), promoted, alone.Name)
			if err != nil {
				t.Fatal(err)
			}
			if lost := last - info.Token; synchronous && lost > 0 || !synchronous && lost < 30 {
				t.Fatalf("the new primary knows token %d, and %d was acknowledged: want that %d are lost at least, or none where it was synchronous", info.Token, last, 30)
			}
			t.Logf("lost: %d acknowledged grants", max(0, last-info.Token))
			gate.Point(standby.Server)
			reached := time.Now()
			dbtest.Eventually(t, "the end of three sessions", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				return len(f.lost) == 3
			})
			t.Logf("noticed by all %v after the new primary could be reached; a beat is %v", time.Since(reached), shortTTL/3)
			dbtest.Eventually(t, "grants after the quarantine", func() bool { return f.granted() > before+30 })

			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.lost) != 3 {
				t.Errorf("got %d sessions that ended, want 3", len(f.lost))
			}
			for _, err := range f.lost {
				if !errors.Is(err, coordd.ErrHistoryLost) {
					t.Errorf("a session ended with %v, want %v", err, coordd.ErrHistoryLost)
				}
			}
			for i := 1; i < len(f.tokens); i++ {
				if f.tokens[i] <= f.tokens[i-1] {
					t.Errorf("token %d after %d", f.tokens[i], f.tokens[i-1])
				}
			}
			after := f.when[before]
			if f.tokens[before] <= last+1000 {
				t.Errorf("the first token after the failover: got %d after %d, want one above a new floor", f.tokens[before], last)
			}
			if waited := after.Sub(reached); waited < shortTTL {
				t.Errorf("granted again after %v, when rights from before may have been valid for %v", waited, shortTTL)
			} else {
				t.Logf("granted again after %v; the longest TTL is %v", waited, shortTTL)
			}
			if h, err := journal.ReadHistory(t.Context(), promoted.Queries); err != nil || h.Quarantined() || !h.Intact() {
				t.Errorf("history: got %+v, %v, want it trusted", h, err)
			}
		})
	}
}
