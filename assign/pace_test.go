package assign

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// paced has a member serve a group whose functions take so long to end.
func paced(t *testing.T, db *coordd.DB, as heartbeat.Config, slow time.Duration) *heartbeat.Session {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), db, as)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		err := Run(ctx, s, Config{Group: "g"}, func(ctx context.Context, _ Job) error {
			<-ctx.Done()
			if errors.Is(context.Cause(ctx), ErrMoved) {
				time.Sleep(slow)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", as.Name, err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

// No more functions are started in a second than may be.
func TestFunctionsAreStartedSoManyInASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		grouped(t, db, quick, 30)
		s := joined(t, db, "a")
		ctx, cancel := context.WithCancel(t.Context())
		began := make(chan time.Time, 100)
		var running sync.WaitGroup
		running.Go(func() {
			err := Run(ctx, s, Config{Group: "g", Starts: 10}, func(ctx context.Context, _ Job) error {
				began <- time.Now()
				<-ctx.Done()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		first, last := <-began, time.Time{}
		for range 29 {
			last = <-began
		}
		if took := last.Sub(first); took < 2700*time.Millisecond || took > 3200*time.Millisecond {
			t.Errorf("30 functions, 10 a second: started within %v, want 3 s", took)
		}
		cancel()
		running.Wait()
	})
}

// A member whose functions take long to end, so that most of what may be on its way is on its way from it, keeps
// nobody else's slots from moving.
func TestASlowMemberKeepsNoOtherFromMoving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		grouped(t, db, Group{Name: "g", Slots: 300, Options: Options{Gather: 10 * time.Millisecond}}, 3000)
		paced(t, db, heartbeat.Config{Name: "leader"}, 0)
		paced(t, db, heartbeat.Config{Name: "other"}, 0)
		slow := paced(t, db, heartbeat.Config{Name: "slow", Labels: map[string]string{WeightLabel: "0.22"}}, 45*time.Second)
		fair := paced(t, db, heartbeat.Config{Name: "fair"}, 1500*time.Millisecond)
		dbtest.Eventually(t, "4 members share the slots", func() bool { return shared(t.Context(), db, 4) })
		for _, s := range []*heartbeat.Session{slow, fair} {
			if err := heartbeat.Drain(t.Context(), db, s.ID()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
		}
		time.Sleep(20 * time.Second)
		var left, moving int
		if err := db.Get(t.Context(), []any{&left, &moving}, `select count(case when owner = ? then 1 end), count(target) from coordd_slots`, fair.ID()); err != nil {
			t.Fatal(err)
		}
		if left > 0 || moving == 0 {
			t.Errorf("after 23 s, in which the slow one was to keep its slots: it gives %d away, and the other one has %d; want some, and none", moving, left)
		}
	})
}

// Where jobs cannot be read that are on their way to here, they are asked for now and then.
func TestJobsThatCannotBeReadAreAskedForNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, tapped, tap := dbtest.VirtualTime(t)
		grouped(t, db, Group{Name: "g", Slots: 1000, Options: Options{Gather: 10 * time.Millisecond, MoveCap: 100}}, 3000)
		paced(t, db, heartbeat.Config{Name: "slow"}, 30*time.Second)
		dbtest.Eventually(t, "one member has all", func() bool { return shared(t.Context(), db, 1) })
		var mu sync.Mutex
		reads := 0
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if strings.HasPrefix(stmt, "select slot, job_key") {
				mu.Lock()
				defer mu.Unlock()
				reads++
				return dbtest.ErrReplyLost
			}
			return do()
		})
		paced(t, tapped, heartbeat.Config{Name: "new"}, 0)
		time.Sleep(8 * time.Second)
		tap.Disturb(nil)
		mu.Lock()
		defer mu.Unlock()
		if most := int(8*time.Second/nearPoll) + 5; reads < 2 || reads > most {
			t.Errorf("in 8 s: got %d reads, want some, and %d at most", reads, most)
		}
	})
}

// rung is what a listener hears that the test rings.
type rung struct{ bells sync.Map }

func (r *rung) Err() error { return nil }

func (r *rung) Listen(topic string, ring func()) (stop func()) {
	if topic != "" {
		return func() {}
	}
	key := new(byte)
	r.bells.Store(key, ring)
	return func() { r.bells.Delete(key) }
}

// An owner that hears no rings, as its listener has gone, waits for a target until that has told, which it does soon
// though it hears them itself.
func TestWhoHearsTellsWhoDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf, hears, _ := dbtest.VirtualTime(t)
		all := &rung{}
		hears.Listener = all
		grouped(t, deaf, Group{Name: "g", Slots: 1000, Options: Options{Gather: 10 * time.Millisecond}}, 3000)
		rings, stop := deaf.Listen("")
		defer stop()
		var ringing sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		ringing.Go(func() {
			for sleep(ctx, time.Hour, rings) {
				all.bells.Range(func(_, ring any) bool { ring.(func())(); return true })
			}
		})
		t.Cleanup(func() { cancel(); ringing.Wait() })
		paced(t, deaf, heartbeat.Config{Name: "deaf"}, 0)
		dbtest.Eventually(t, "one member has all", func() bool { return shared(t.Context(), deaf, 1) })
		time.Sleep(10 * time.Second)
		began := time.Now()
		paced(t, hears, heartbeat.Config{Name: "hears"}, 0)
		dbtest.Eventually(t, "2 members share the slots", func() bool { return shared(t.Context(), deaf, 2) })
		if took := time.Since(began); took > heartbeat.DefaultTTL {
			t.Errorf("settled after %v, want within %v", took, heartbeat.DefaultTTL)
		}
	})
}
