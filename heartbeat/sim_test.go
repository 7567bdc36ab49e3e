package heartbeat

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/coordd/coordd/internal/dbtest"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run this one seed of TestSim; 0 means all")
	simSeeds = flag.Int("seeds", 2000, "how many seeds TestSim runs, a tenth of that under the race detector")
)

// Whatever goes wrong, the promises hold. Each seed is a world of some members that crash, leave
// and come back, on a database and a network at their worst, and then a quiet time in which
// everything must come right (sim_world_test.go); the promises are checked at each commit
// (sim_check_test.go).
func TestSim(t *testing.T) {
	all := tally{faults: map[dbtest.Fault]int{}, seen: map[string]int{}}
	if *simSeed != 0 {
		simulate(t, *simSeed, &all)
		return
	}
	seeds := dbtest.Runs(*simSeeds)
	t.Run("seeds", func(t *testing.T) {
		var last atomic.Uint64
		for worker := range 4 {
			t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
				t.Parallel()
				for {
					seed := last.Add(1)
					if seed > uint64(seeds) || all.failed.Load() {
						return
					}
					simulate(t, seed, &all)
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	all.check(t)
	t.Logf("%d seeds, %d statements; hit by %v; seen: %v", seeds, all.statements, all.faults, all.seen)
}

// simulate runs one seed in a bubble of its own.
func simulate(t *testing.T, seed uint64, all *tally) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed)
		w.run()
		if what := w.sim.Verdict(); what != "" {
			all.failed.Store(true)
			t.Fatalf("seed %d: %s\n%s\nreplay: go test ./heartbeat -run '^TestSim$' -seed %d -count 20", seed, what, w.sim.Story(), seed)
		}
		faults, statements := w.sim.Faults()
		if len(faults) == 0 || statements < 50 {
			t.Fatalf("seed %d proves nothing: it had %d kinds of faults and %d statements", seed, len(faults), statements)
		}
		all.add(faults, statements, w.seen)
	})
}

// tally is what all seeds together have seen: a run in which little happened proves little.
type tally struct {
	failed atomic.Bool

	mu         sync.Mutex
	statements int
	faults     map[dbtest.Fault]int
	seen       map[string]int
}

func (a *tally) add(faults map[dbtest.Fault]int, statements int, seen map[string]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.statements += statements
	for f, n := range faults {
		a.faults[f] += n
	}
	for what, n := range seen {
		a.seen[what] += n
	}
}

func (a *tally) check(t *testing.T) {
	t.Helper()
	for _, f := range dbtest.Faults {
		if a.faults[f] == 0 {
			t.Errorf("%s hit no statement", f)
		}
	}
	for _, what := range []string{sawJoin, sawCrash, sawLeave, sawDeath, sawLoss, sawSuspension, sawResumption, sawOrder} {
		if a.seen[what] == 0 {
			t.Errorf("%s: got none in all seeds (saw %v)", what, slices.Sorted(maps.Keys(a.seen)))
		}
	}
}
