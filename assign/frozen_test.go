package assign

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

// Moments that the simulation meets too seldom to catch every mistake in what is done then.

// greedy moves everything to one member, once it is told to, and waits before it does.
type greedy struct {
	Planner
	plans, thaws chan struct{}
	waits        atomic.Bool
	to           string
}

func (g *greedy) Plan(v View) []int {
	if !g.waits.Load() {
		return g.Planner.Plan(v)
	}
	g.plans <- struct{}{}
	<-g.thaws
	return slices.Repeat([]int{slices.IndexFunc(v.Members, func(m Member) bool { return m.Name == g.to })}, len(v.Owners))
}

// Where no daemon empties the outbox, a leader does, however much is in it.
func TestALeaderEmptiesTheOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, tapped, _ := dbtest.VirtualTime(t)
		grouped(t, db, quick, 0)
		b := newBoard()
		serves(t, tapped, b, "a", Config{Group: "g"})
		dbtest.Eventually(t, "all slots given", func() bool { return !slices.Contains(owners(t, db), "") })
		const jobs = 10 * journal.Batch
		if err := db.InTx(t.Context(), func(tx *sql.Tx) error {
			for i := range jobs {
				if _, err := AddTx(t.Context(), db, tx, "g", Spec{Key: fmt.Sprint("job-", i)}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		b.settles(t, jobs)
		if took, promised := time.Since(began), 2*shortTTL/3+2*time.Second; took > promised {
			t.Errorf("all jobs run after %v, want two beats and a little: %v", took, promised)
		}
	})
}

// A leader that cannot plan, and has been able to, asks no more often than others.
func TestALeaderThatFailsIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, tapped, tap := dbtest.VirtualTime(t)
		grouped(t, db, quick, 10)
		b := newBoard()
		serves(t, tapped, b, "a", Config{Group: "g"})
		b.settles(t, 10)
		if _, err := db.Exec(t.Context(), `update coordd_groups set strategy = 'of a later version', plan_version = plan_version + 1`); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * replan)
		before := tap.Statements()
		time.Sleep(10 * time.Second)
		if n := tap.Statements() - before; n > 400 {
			t.Errorf("got %d statements in 10 s, want 400 at most", n)
		}
	})
}

// A process freezes while it plans and thaws when another leads. Its own clock has not told it
// yet, and its context has not ended: what it writes first is its plan. Nothing comes of it.
func TestADeposedLeaderPlansNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, tapped, tap := dbtest.VirtualTime(t)
		grouped(t, db, quick, 30)
		b := newBoard()
		g := &greedy{Planner: Sticky(ConsistentHash{}), plans: make(chan struct{}), thaws: make(chan struct{}), to: "c"}
		var frozen atomic.Pointer[time.Duration] // where its clock stands still
		now := func() time.Duration {
			if at := frozen.Load(); at != nil {
				return *at
			}
			return clock.Now()
		}
		s, err := heartbeat.Join(clock.With(t.Context(), now), tapped, heartbeat.Config{Name: "a", TTL: shortTTL})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Leave(context.Background()) })
		serving{s: s}.again(t, b, "a", Config{Group: "g", Planner: g})
		leads := func(name string) func() bool {
			return func() bool {
				l, err := election.Current(t.Context(), db, electionOf("g"))
				return err == nil && l.Name == name
			}
		}
		dbtest.Eventually(t, "a to lead", leads("a"))
		serves(t, db, b, "b", Config{Group: "g"})
		serves(t, db, b, "c", Config{Group: "g", NoCandidate: true})
		b.settles(t, 10, 10, 10)

		g.waits.Store(true)
		other := quick
		other.MoveCap = 50
		if err := Define(t.Context(), db, other); err != nil {
			t.Fatal(err)
		}
		<-g.plans
		at := clock.Now()
		frozen.Store(&at)
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		dbtest.Eventually(t, "b to lead", leads("b"))
		dbtest.Eventually(t, "the others to have its slots", func() bool { return shared(t.Context(), db, 2) })

		before := slotsOf(t, db)
		g.waits.Store(false)
		tried := false
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			switch {
			case strings.HasPrefix(stmt, "update coordd_heartbeats"):
				return dbtest.ErrReplyLost // it is the slower one
			case strings.Contains(stmt, "from coordd_leases"): // its guard
				tried = true
			}
			return do()
		})
		g.thaws <- struct{}{}
		time.Sleep(shortTTL)
		if after := slotsOf(t, db); !slices.Equal(before, after) {
			t.Errorf("the plan of a leader of the past was written:\nbefore %v\nafter  %v", before, after)
		}
		if !tried {
			t.Error("it has not tried to")
		}
		frozen.Store(nil)
		tap.Disturb(nil)
	})
}

func slotsOf(t *testing.T, db *coordd.DB) []slotRow {
	t.Helper()
	all, err := coordd.All(t.Context(), db.Queries, func(r *slotRow) []any { return []any{&r.slot, &r.owner, &r.target, &r.epoch, &r.version} },
		`select slot, coalesce(owner, ''), coalesce(target, ''), epoch, version from coordd_slots where grp = 'g' order by slot`)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A member asks for its slots before the session's deadline, and learns right after it that some are
// its own. It begins nothing, and forgets nothing: it goes on when the session is connected again.
func TestNothingIsTakenUpAfterTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := newLate(t, func(context.Context, *late, func() error) error { return dbtest.ErrReplyLost })
		time.Sleep(shortTTL)
		late.b.mu.Lock()
		defer late.b.mu.Unlock()
		if late.b.starts > 0 {
			t.Errorf("%d functions were begun after the deadline", late.b.starts)
		}
	})
}

func TestWhatCouldNotBeTakenUpIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := newLate(t, func(ctx context.Context, l *late, do func() error) error {
			return errors.Join(do(), l.reach(ctx, 2*time.Millisecond)) // that is when it is connected again
		})
		late.tap.Disturb(nil)
		late.b.settles(t, 30)
	})
}

// late is a member that is given all slots right before its session's deadline.
type late struct {
	s       *heartbeat.Session
	tap     *dbtest.Tap
	b       *board
	answers atomic.Int32 // that told it so right after that
}

func newLate(t *testing.T, beat func(ctx context.Context, l *late, do func() error) error) *late {
	db, tapped, tap := dbtest.VirtualTime(t)
	g := quick
	g.Selector = map[string]string{"zone": "nowhere"}
	grouped(t, db, g, 30)
	l := &late{tap: tap, b: newBoard()}
	serves(t, db, l.b, "leader", Config{Group: "g"})
	as := heartbeat.Config{Name: "late", TTL: shortTTL, Labels: map[string]string{"zone": "a"}}
	l.s = servesAs(t, tapped, l.b, as, Config{Group: "g", NoCandidate: true}).s
	time.Sleep(time.Minute)

	tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
		switch {
		case strings.HasPrefix(stmt, "update coordd_heartbeats"):
			return beat(ctx, l, do)
		case strings.Contains(stmt, "left join coordd_slots") && l.s.Status() == heartbeat.Connected:
			if l.s.Stats().Remaining > 250*time.Millisecond { // it is asked again soon enough
				return dbtest.ErrReplyLost
			}
			if err := l.reach(ctx, time.Millisecond); err != nil {
				return err
			}
			l.answers.Add(1)
		}
		return do()
	})
	t.Cleanup(func() { tap.Disturb(nil) })
	g.Selector["zone"] = "a"
	if err := Define(t.Context(), db, g); err != nil {
		t.Fatal(err)
	}
	dbtest.Eventually(t, "the slots to be its own", func() bool { return slotsOf(t, db)[0].owner == l.s.ID() })
	if l.s.Status() != heartbeat.Connected {
		t.Fatal("they came too late")
	}
	dbtest.Eventually(t, "an answer after the deadline", func() bool { return l.answers.Load() > 0 })
	return l
}

// reach waits until so long after the deadline, or for ctx, whose statement then has no answer.
func (l *late) reach(ctx context.Context, after time.Duration) error {
	return dbtest.Pause(ctx, l.s.Stats().Remaining+after)
}
