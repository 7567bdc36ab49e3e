package assign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// What docs/design.md promises of jobs, on every database and in real time.

// restless moves slots at random.
type restless struct{}

func (restless) Plan(v View) []int {
	plan := Sticky(LeastLoaded{}).Plan(v)
	for slot := range plan {
		if rand.IntN(4) == 0 {
			plan[slot] = rand.IntN(len(v.Members))
		}
	}
	return plan
}

// A1: a slot has one owner in each epoch, and its epochs increase, though two leaders plan at once,
// each of whom takes himself for the only one, while slots are handed over and given back.
func TestA1EpochsIncreaseAndEachHasOneOwner(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		const jobs, enough = 40, 400
		grouped(t, db, quick, jobs)
		b := newBoard()
		var members []serving
		for _, name := range []string{"a", "b", "c"} {
			members = append(members, serves(t, db, b, name, Config{Group: "g", NoCandidate: true}))
		}
		planning, stop := context.WithCancel(t.Context())
		defer stop()
		var leading sync.WaitGroup
		for _, name := range []string{"one", "other"} {
			leading.Go(func() { plans(planning, t, db, name) })
		}
		e := &epochs{owners: map[slotEpoch]string{}, latest: map[int]int64{}}
		for began := time.Now(); e.changes < enough && time.Since(began) < dbtest.Patience; {
			for i, m := range members {
				if rand.IntN(100) == 0 {
					m.stop()
					members[i] = m.again(t, b, m.s.Name(), Config{Group: "g", NoCandidate: true})
				}
			}
			e.read(t, db)
			b.check(t)
		}
		stop()
		leading.Wait()
		if e.changes < enough/10 {
			t.Fatalf("got %d changes of owners: nothing was shown", e.changes)
		}
		t.Logf("%d changes of owners", e.changes)
	})
}

// plans plans for the group as if it had been elected to, by an election of its own.
func plans(ctx context.Context, t *testing.T, db *coordd.DB, name string) {
	s := joined(t, db, name)
	term, err := election.Campaign(ctx, s, election.Config{Name: name})
	if err != nil {
		t.Error(err)
		return
	}
	defer term.Resign(ctx)
	seam := s.Beside("seam", func(seam heartbeat.Seam) any { return seam }).(heartbeat.Seam)
	k := &keeper{Seam: seam, session: s, group: "g"}
	p := &planning{leader: newLeader(k, Config{Group: "g", Planner: restless{}}.withDefaults()), term: term, memory: newMemory()}
	for sleep(ctx, rand.N(20*time.Millisecond), nil) {
		p.last = basis{} // plan, whether anything has changed or not
		if err := p.round(ctx); err != nil && ctx.Err() == nil {
			t.Log(err) // it meets the other one's, and is tried again
		}
	}
}

// epochs are what was seen of slots.
type epochs struct {
	owners  map[slotEpoch]string
	latest  map[int]int64
	changes int
}

func (e *epochs) read(t *testing.T, db *coordd.DB) {
	t.Helper()
	slots, err := readSlots(t.Context(), db.Queries, "g")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range slots {
		here := slotEpoch{r.slot, r.epoch}
		if owner, known := e.owners[here]; known && owner != r.owner {
			t.Fatalf("slot %d is %s's in epoch %d, and was %s's in the same", r.slot, r.owner, r.epoch, owner)
		}
		if r.epoch < e.latest[r.slot] {
			t.Fatalf("slot %d has epoch %d, and had %d", r.slot, r.epoch, e.latest[r.slot])
		}
		e.changes += int(r.epoch - e.latest[r.slot])
		e.owners[here], e.latest[r.slot] = r.owner, r.epoch
	}
}

// A2: whatever moves, a job begins only after its function at the owner before has returned, which
// takes its time.
func TestA2AJobBeginsAfterItHasEnded(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		const enough = 100
		grouped(t, db, quick, 40)
		b := newBoard()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var serving sync.WaitGroup
		for _, name := range []string{"a", "b", "c"} {
			s := joined(t, db, name)
			serving.Go(func() {
				err := Run(ctx, s, Config{Group: "g", Planner: restless{}}, func(ctx context.Context, j Job) error {
					b.begin(name, j)
					defer b.end(name, j)
					<-ctx.Done()
					time.Sleep(rand.N(100 * time.Millisecond))
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		dbtest.Eventually(t, fmt.Sprintf("%d starts", enough), func() bool {
			b.check(t)
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.starts >= enough
		})
		stop()
		serving.Wait()
		b.check(t)
	})
}

// A2: the slots of a member that is frozen move when its session has ended, and not before, though
// its functions have not returned.
func TestA2TheSlotsOfTheFrozenMoveWhenItsSessionHasEnded(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		cutOff, tap := dbtest.OpenTapped(t, dsn)
		grouped(t, db, quick, 8)
		frozen := joined(t, cutOff, "frozen")
		hold, done := make(chan struct{}), make(chan error, 1)
		var mu sync.Mutex
		var held []Job
		go func() {
			done <- Run(t.Context(), frozen, Config{Group: "g"}, func(ctx context.Context, j Job) error {
				mu.Lock()
				held = append(held, j)
				mu.Unlock()
				<-hold
				return nil
			})
		}()
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(held) }
		dbtest.Eventually(t, "all jobs at one", func() bool { return count() == 8 })

		b, next := newBoard(), joined(t, db, "next")
		thaw := make(chan struct{})
		tap.Disturb(func(ctx context.Context, _ string, do func() error) error {
			select {
			case <-thaw:
				return do()
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, next, Config{Group: "g"}, func(ctx context.Context, j Job) error {
				for _, other := range held {
					if other.Key == j.Key && other.Valid() {
						t.Errorf("%s begins at another in epoch %d while it is valid in epoch %d", j.Key, j.Epoch(), other.Epoch())
					}
				}
				var state string
				if err := db.Get(ctx, []any{&state}, `select state from coordd_heartbeats where member_id = ?`, frozen.ID()); err != nil || state != "dead" {
					t.Errorf("%s begins at another while its owner is %s, %v; want dead", j.Key, state, err)
				}
				b.begin("next", j)
				defer b.end("next", j)
				<-ctx.Done()
				return nil
			})
		}()
		b.settles(t, 8)
		close(thaw)
		<-frozen.Done()
		close(hold)
		if err := <-done; err == nil {
			t.Error("the frozen one serves on: got nil, want that its session was lost")
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A2, and M3: an outage of the database for everybody, however long, moves nothing: all functions end
// when their sessions are suspended, and begin again in the same epochs where they were.
func TestAnOutageMovesNothing(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		cutOff, tap := dbtest.OpenTapped(t, dsn)
		grouped(t, db, quick, 12)
		b := newBoard()
		for _, name := range []string{"a", "b", "c"} {
			servesAs(t, cutOff, b, brief(name), Config{Group: "g"})
		}
		b.settles(t, 4, 4, 4)
		where, was := b.where(), b.latest()
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrBroken })
		b.settles(t)
		time.Sleep(shortTTL) // so that whoever would declare others dead could
		tap.Disturb(nil)
		b.settles(t, 4, 4, 4)
		now, is := b.where(), b.latest()
		for job := range where {
			if now[job] != where[job] || is[job] != was[job] {
				t.Errorf("%s: got it at %s in epoch %d, want at %s in epoch %d", job, now[job], is[job], where[job], was[job])
			}
		}
	})
}

func (b *board) latest() map[string]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	latest := map[string]int64{}
	for job, epoch := range b.epochs {
		latest[job] = epoch
	}
	return latest
}

// lost forgets what a member runs, whose process is gone.
func (b *board) lost(member string) (jobs int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for job, at := range b.runs {
		if at == member {
			delete(b.runs, job)
			jobs++
		}
	}
	return jobs
}

// A3: when a member crashes, be it the leader, each of its jobs has an owner again within the settling
// time: what it takes to see it dead, what it takes to elect another leader where it led, and a
// moment to plan and to hear of it.
func TestA3EachJobHasAnOwnerAgainAfterACrash(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		grouped(t, db, quick, 60)
		b := newBoard()
		taps := map[string]*dbtest.Tap{}
		ids := map[string]string{}
		for _, name := range []string{"a", "b", "c"} {
			own, tap := dbtest.OpenTapped(t, dsn)
			taps[name] = tap
			ids[servesAs(t, own, b, brief(name), Config{Group: "g"}).s.ID()] = name
		}
		b.settles(t, 20, 20, 20)
		leader, err := election.Current(t.Context(), db, electionOf("g"))
		if err != nil {
			t.Fatal(err)
		}
		first := ids[leader.MemberID]
		var other string
		for name := range taps {
			if name != first {
				other = name
			}
		}
		for _, crashed := range []string{first, other} {
			taps[crashed].Disturb(func(context.Context, string, func() error) error { return dbtest.ErrBroken })
			began := time.Now()
			if b.lost(crashed) == 0 {
				t.Fatalf("%s ran nothing", crashed)
			}
			want := []int{30, 30}
			if crashed == other {
				want = []int{60}
			}
			b.settles(t, want...)
			took, most := time.Since(began), 3*shortTTL+5*time.Second
			if took > most {
				t.Errorf("%s has crashed: its jobs had owners after %v, want %v at most", crashed, took, most)
			}
			t.Logf("%s has crashed, which led: %v; all jobs had owners after %v with a TTL of %v", crashed, crashed == first, took, shortTTL)
		}
	})
}

// A3: one of n that comes or goes moves at most 5 % more than must move.
func TestA3OneThatComesOrGoesMovesLittle(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		const jobs = 600
		g := quick
		g.Slots = 1200
		grouped(t, db, g, jobs)
		b := newBoard()
		for _, name := range []string{"a", "b", "c", "d"} {
			serves(t, db, b, name, Config{Group: "g"})
		}
		even := func(n int) func() bool {
			return func() bool {
				b.check(t)
				shares := b.shares()
				return len(shares) == n && shares[0] >= jobs*9/10/n && sum(shares) == jobs
			}
		}
		dbtest.Eventually(t, "jobs shared among four", even(4))
		b.rests(t)
		before := b.turns()
		fifth := serves(t, db, b, "e", Config{Group: "g"})
		dbtest.Eventually(t, "jobs shared among five", even(5))
		b.rests(t)
		if moved, least := b.turns()-before, jobs/5; moved*100 > least*105 {
			t.Errorf("one of five has come: %d jobs moved, want %d and 5 %% more at most", moved, least)
		}
		had := len(b.at("e"))
		before = b.turns()
		fifth.stop()
		dbtest.Eventually(t, "jobs shared among four again", even(4))
		b.rests(t)
		if moved := (b.turns() - before) / 2; moved*100 > had*105 {
			t.Errorf("one of five has gone, which had %d jobs: %d moved, want 5 %% more at most", had, moved)
		}
	})
}

// turns grows by one with each job that is given back, taken or handed over, and not where one
// begins again after a lapse.
func (b *board) turns() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, epoch := range b.epochs {
		n += int(epoch)
	}
	return n
}

func sum(shares []int) (all int) {
	for _, n := range shares {
		all += n
	}
	return all
}

// rests waits until nothing has begun for a while.
func (b *board) rests(t *testing.T) {
	t.Helper()
	before, since := b.count(), time.Now()
	dbtest.Eventually(t, "rest", func() bool {
		if now := b.count(); now != before {
			before, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
}

func (b *board) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.starts
}

// at is what a member runs.
func (b *board) at(member string) (jobs []string) {
	for job, at := range b.where() {
		if at == member {
			jobs = append(jobs, job)
		}
	}
	slices.Sort(jobs)
	return jobs
}

// A group that is dropped and made again at once is another: who served the one, and may not even have
// noticed, runs the jobs of the other and none of those before.
func TestAGroupMadeAnewIsAnother(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		grouped(t, db, quick, 10)
		b := newBoard()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var serving sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			s := joined(t, db, name)
			serving.Go(func() {
				err := coordd.ErrNone
				for errors.Is(err, coordd.ErrNone) { // it has noticed
					err = Run(ctx, s, Config{Group: "g"}, func(ctx context.Context, j Job) error {
						b.begin(name, j)
						defer b.end(name, j)
						<-ctx.Done()
						return nil
					})
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		b.settles(t, 5, 5)
		for _, stmt := range []string{stmtDropGroup, stmtDropMembers, stmtDropSlots, stmtDropJobs} { // by hand: Drop refuses
			if _, err := db.Exec(t.Context(), stmt, "g"); err != nil {
				t.Fatal(err)
			}
		}
		if err := Define(t.Context(), db, quick); err != nil {
			t.Fatal(err)
		}
		if _, err := Add(t.Context(), db, "g", Spec{Key: "new-0"}, Spec{Key: "new-1"}); err != nil {
			t.Fatal(err)
		}
		dbtest.Eventually(t, "the new jobs, and none of the old ones", func() bool {
			return slices.Equal(slices.Sorted(maps.Keys(b.where())), []string{"new-0", "new-1"})
		})
		stop()
		serving.Wait()
	})
}

// What a transaction has added that was open while its group was dropped is in slots of that one: it is none of the
// next one's.
func TestAGroupIsMadeWithoutJobs(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		late, err := Spec{Key: "late"}.columns("g", DefaultSlots)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(t.Context(), stmtAdd+addRow, late...); err != nil {
			t.Fatal(err)
		}
		grouped(t, db, quick, 1)
		added, err := Add(t.Context(), db, "g", Spec{Key: "late"})
		if err != nil || added != 1 {
			t.Errorf("added %d, %v; want 1", added, err)
		}
	})
}

// What was read of slots on their way to a member is not run if they arrive from another group of that name.
func TestAGroupMadeAnewHasNoneOfTheOldJobs(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		tapped, tap := dbtest.OpenTapped(t, dsn)
		var reads atomic.Int32
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			err := do()
			if err == nil && strings.HasPrefix(stmt, "select slot, job_key") {
				reads.Add(1)
			}
			return err
		})
		grouped(t, db, quick, 60)
		ctx, stop := context.WithCancel(t.Context())
		release := make(chan struct{})
		var serving sync.WaitGroup
		var begun atomic.Int32 // by b
		serve := func(s *heartbeat.Session, cfg Config, fn func(context.Context, Job) error) {
			serving.Go(func() {
				err := coordd.ErrNone
				for errors.Is(err, coordd.ErrNone) {
					err = Run(ctx, s, cfg, fn)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		b := newBoard()
		serve(joined(t, db, "a"), Config{Group: "g"}, func(ctx context.Context, j Job) error {
			b.begin("a", j)
			defer b.end("a", j)
			<-ctx.Done()
			<-release // it keeps what is to move
			return nil
		})
		b.settles(t, 60)
		serve(joined(t, tapped, "b"), Config{Group: "g", NoCandidate: true}, func(ctx context.Context, j Job) error {
			if j.Key != "new" {
				begun.Add(1)
			}
			<-ctx.Done()
			return nil
		})
		dbtest.Eventually(t, "the jobs read of slots on their way", func() bool { return reads.Load() > 0 })
		err := db.Tx(t.Context(), func(tx coordd.Queries) error {
			for _, stmt := range []string{stmtDropGroup, stmtDropMembers, stmtDropSlots, stmtDropJobs} {
				if _, err := tx.Exec(t.Context(), stmt, "g"); err != nil {
					return err
				}
			}
			if _, err := tx.Exec(t.Context(), stmtNewGroup, "g", quick.Slots, DefaultStrategy, "{}"); err != nil {
				return err
			}
			return quick.makeSlots(t.Context(), tx)
		})
		if err != nil {
			t.Fatal(err)
		}
		close(release)
		if _, err := Add(t.Context(), db, "g", Spec{Key: "new"}); err != nil {
			t.Fatal(err)
		}
		counting{T: t, db: db}.settles(2)
		if n := begun.Load(); n > 0 {
			t.Errorf("%d jobs of the group that was dropped were begun, want none", n)
		}
		stop()
		serving.Wait()
	})
}
