package assign

import (
	"context"
	"encoding/json"
	flags "flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

var figures = flags.Bool("figures", false, "measure for long, and print the tables of docs/figures.md")

// stamps is the labour of a process that notes when the jobs of each slot began and ended. They end
// at once.
type stamps struct {
	life *life
	log  *slog.Logger

	mu    sync.Mutex
	turns map[slotEpoch]*turn
}

// turn is one owner's time with the jobs of a slot.
type turn struct {
	Slot       int
	Epoch      int64
	LastBegan  int64 // of its jobs
	FirstEnded int64 // 0: none has
}

// told is what such a process knows.
type told struct {
	Turns    []turn
	Troubles []int64
}

func (st *stamps) serve(ctx context.Context, s *heartbeat.Session) error {
	defer st.life.beside(ctx, s)()
	return Run(ctx, s, Config{Group: "g", Logger: st.log}, func(ctx context.Context, j Job) error {
		st.begins(j)
		<-ctx.Done()
		st.ends(j)
		return nil
	})
}

func (st *stamps) begins(j Job) {
	st.mu.Lock()
	defer st.mu.Unlock()
	t := st.of(j)
	t.LastBegan = instant()
	st.life.busy.Add(1)
}

func (st *stamps) ends(j Job) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if t := st.of(j); t.FirstEnded == 0 {
		t.FirstEnded = instant()
	}
	st.life.busy.Add(-1)
}

// of is called with mu held.
func (st *stamps) of(j Job) *turn {
	at := slotEpoch{j.Slot(), j.Epoch()}
	if st.turns[at] == nil {
		st.turns[at] = &turn{Slot: at.slot, Epoch: at.epoch}
	}
	return st.turns[at]
}

func (st *stamps) tell(string) string {
	st.mu.Lock()
	defer st.mu.Unlock()
	all := told{Troubles: st.life.troubles()}
	for _, t := range st.turns {
		all.Turns = append(all.Turns, *t)
	}
	line, err := json.Marshal(all)
	if err != nil {
		return err.Error()
	}
	return string(line)
}

// cluster is a group that processes serve.
type cluster struct {
	*testing.T
	spec    memberSpec
	db      *coordd.DB
	jobs    int
	live    []*process
	started int
}

func (c *cluster) join() {
	c.Helper()
	c.started++
	spec := c.spec
	spec.Name = fmt.Sprint("process-", c.started)
	c.live = append(c.live, start(c.T, spec))
}

func (c *cluster) lose(p *process) {
	c.live = slices.DeleteFunc(c.live, func(other *process) bool { return other == p })
}

// settles waits until so many have all slots and work on all jobs, and no slot has to go to another.
func (c *cluster) settles(members int) {
	c.Helper()
	dbtest.Eventually(c.T, fmt.Sprintf("%d members that share all jobs", members), func() bool {
		busy, working := 0, 0
		for _, p := range c.live {
			if _, n := p.lastSign(); n > 0 {
				busy, working = busy+n, working+1
			}
		}
		if busy != c.jobs || working != members {
			return false
		}
		time.Sleep(100 * time.Millisecond) // to ask all the time would be to measure that
		return shared(c.Context(), c.db, members)
	})
}

// measured is one change of membership, and what it took until all was settled.
type measured struct {
	took     time.Duration   // until the last job had begun
	gaps     []time.Duration // for which some job of a slot that moved was not looked after, a slot each
	troubled bool            // the machine or the database stood still meanwhile; the times are counted from then
}

// measure has something happen, which says since when to count.
func (c *cluster) measure(members int, happen func() (since int64)) (m measured) {
	c.Helper()
	since := happen()
	c.settles(members)
	var all told
	for _, p := range c.live {
		var some told
		if err := json.Unmarshal([]byte(p.ask("dump")), &some); err != nil {
			c.Fatal(err)
		}
		all.Turns, all.Troubles = append(all.Turns, some.Turns...), append(all.Troubles, some.Troubles...)
	}
	slices.Sort(all.Troubles)
	span := func(from, to int64) time.Duration {
		if i, _ := slices.BinarySearch(all.Troubles, to); i > 0 && all.Troubles[i-1] > from {
			from, m.troubled = all.Troubles[i-1], true
		}
		return time.Duration(to - from)
	}
	slices.SortFunc(all.Turns, func(a, b turn) int { return (a.Slot-b.Slot)<<32 + int(a.Epoch-b.Epoch) })
	last := since
	for i, t := range all.Turns {
		if t.LastBegan < since {
			continue
		}
		last = max(last, t.LastBegan)
		if before := all.Turns[max(0, i-1)]; i > 0 && before.Slot == t.Slot && before.FirstEnded >= since {
			m.gaps = append(m.gaps, span(before.FirstEnded, t.LastBegan))
		}
	}
	m.took = span(since, last)
	return m
}

// changes are one of each kind of change, to a cluster of three.
func (c *cluster) changes(note func(kind string, m measured)) {
	c.Helper()
	p := c.live[rand.IntN(len(c.live))]
	operate := func(do func(context.Context, *coordd.DB, string, ...heartbeat.By) error) func() int64 {
		return func() int64 {
			since := instant()
			if err := do(c.Context(), c.db, p.latest()); err != nil {
				c.Fatal(err)
			}
			return since
		}
	}
	note("drain", c.measure(2, operate(heartbeat.Drain)))
	note("undrain", c.measure(3, operate(heartbeat.Undrain)))
	note("crash", c.measure(2, func() int64 { since := instant(); p.kill(); c.lose(p); return since }))
	note("join", c.measure(3, func() int64 { c.join(); return instant() }))
	p = c.live[rand.IntN(len(c.live))]
	note("leave", c.measure(2, func() int64 { since := instant(); p.leave(); c.lose(p); return since }))
	c.join()
	c.settles(3)
}

// kinds of changes, in the order of the tables.
var kinds = []string{"drain", "undrain", "leave", "join", "crash"}

// promises are how soon after each kind of change all must be settled, and for how long nobody looks
// after a slot that moves as planned, but for one in a hundred.
type promises struct {
	settled map[string]time.Duration
	gap     time.Duration
}

func promisesOf(listens bool, ttl, gather time.Duration) promises {
	p := promises{settled: map[string]time.Duration{"crash": settling(ttl)}, gap: 700 * time.Millisecond}
	if listens {
		p.gap = 100 * time.Millisecond
		p.settled["drain"], p.settled["leave"], p.settled["join"] = time.Second, time.Second, gather+time.Second
		p.settled["undrain"] = gather + time.Second // for who is undrained has come, to a leader that is new
	}
	return p
}

// busy is what a bound is given beside what is promised, as a test cannot tell a process that is
// slow from one that has to wait for the processor.
const busy = 2 * time.Second

// Processes that are drained, leave, crash and come: their jobs are with others in time, and those that move as planned
// are without anybody for a moment only.
func TestA3JobsSettleInTime(t *testing.T) {
	if !*figures {
		t.Skip("its bounds are for a machine that does nothing else: -figures measures")
	}
	for _, database := range []struct {
		name    string
		schema  func(testing.TB) string
		listens bool
	}{
		{"postgres that rings", dbtest.PostgresSchema, true},
		{"postgres", dbtest.PostgresSchema, false},
		{"mysql", dbtest.MySQLSchema, false},
	} {
		t.Run(database.name, func(t *testing.T) {
			g, jobs := Group{Name: "g"}, 10_000
			dsn := database.schema(t)
			c := &cluster{T: t, db: dbtest.Migrated(t, dsn), jobs: jobs, spec: memberSpec{
				DSN: dsn, TTL: heartbeat.DefaultTTL, Work: "stamps", Listens: database.listens,
			}}
			grouped(t, c.db, g, jobs)
			for range 3 {
				c.join()
			}
			c.settles(3)
			all := map[string][]measured{}
			for range 8 {
				c.changes(func(kind string, m measured) { all[kind] = append(all[kind], m) })
			}
			p := promisesOf(database.listens, heartbeat.DefaultTTL, g.Defaults().Gather)
			var every []measured
			for _, kind := range kinds {
				p.check(t, kind, all[kind])
				p.print(database.name, kind, all[kind])
				every = append(every, all[kind]...)
			}
			p.print(database.name, "any", every)
		})
	}
}

func (p promises) check(t *testing.T, kind string, all []measured) {
	t.Helper()
	for _, m := range all {
		t.Logf("%s: settled after %v, %d moves as planned, of which one in a hundred took longer than %v, one %v; disturbed: %v", kind, m.took, len(m.gaps), quantile(m.gaps, 99), quantile(m.gaps, 100), m.troubled)
		if promised, some := p.settled[kind]; some && m.took > promised+busy {
			t.Errorf("%s: settled after %v, want %v, and on a busy machine not much more", kind, m.took, promised)
		}
		if got := quantile(m.gaps, 99); got > p.gap+busy {
			t.Errorf("%s: one in a hundred slots that moved was with nobody for %v, want %v, and on a busy machine not much more", kind, got, p.gap)
		}
	}
}

// print prints a line of the table, without what the machine has disturbed.
func (p promises) print(database, kind string, all []measured) {
	var took, gaps []time.Duration
	disturbed := 0
	for _, m := range all {
		if m.troubled {
			disturbed++
			continue
		}
		took, gaps = append(took, m.took), append(gaps, m.gaps...)
	}
	promised := "-"
	if d, some := p.settled[kind]; some {
		promised = fmt.Sprint(d.Round(time.Millisecond))
	}
	fmt.Printf("| %s | %s | %d, %d | %v | %v | %s | %d | %v | %v | %v | %v |\n", database, kind, len(took), disturbed, quantile(took, 50), quantile(took, 100), promised,
		len(gaps), quantile(gaps, 50), quantile(gaps, 99), quantile(gaps, 100), p.gap)
}

// quantile is the time that so many percent do not exceed.
func quantile(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[(len(all)*percent+99)/100-1].Round(time.Millisecond)
}
