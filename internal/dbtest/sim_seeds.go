package dbtest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Simulate runs a world for each seed from 1 on, each in a bubble of its own, or for one seed if
// only is not 0. It fails with the first verdict, and says how to replay it. It also fails if the
// worlds have not seen together each fault and all of wanted: a run in which little happened
// proves little.
func Simulate(t *testing.T, only uint64, seeds int, wanted []string, world func(t *testing.T, seed uint64) (s *Sim, seen map[string]int)) {
	all := tally{faults: map[Fault]int{}, seen: map[string]int{}}
	if only != 0 {
		all.simulate(t, only, world)
		return
	}
	name := t.Name()
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
					all.simulate(t, seed, world)
				}
			})
		}
	})
	if t.Failed() {
		t.Logf("replay a seed in this folder: go test -run '^%s$' -seed N -count 20", name)
		return
	}
	all.check(t, wanted)
	t.Logf("%d seeds, %d statements; hit by %v; seen: %v", seeds, all.statements, all.faults, all.seen)
}

// tally is what all seeds together have seen.
type tally struct {
	failed atomic.Bool

	mu         sync.Mutex
	statements int
	faults     map[Fault]int
	seen       map[string]int
}

func (a *tally) simulate(t *testing.T, seed uint64, world func(*testing.T, uint64) (*Sim, map[string]int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, seen := world(t, seed)
		if what := s.Verdict(); what != "" {
			a.failed.Store(true)
			t.Fatalf("seed %d: %s\n%s", seed, what, s.Story())
		}
		faults, statements := s.Faults()
		if len(faults) == 0 || statements < 50 {
			t.Fatalf("seed %d proves nothing: it had %d kinds of faults and %d statements", seed, len(faults), statements)
		}
		a.add(faults, statements, seen)
	})
}

func (a *tally) add(faults map[Fault]int, statements int, seen map[string]int) {
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

func (a *tally) check(t *testing.T, wanted []string) {
	t.Helper()
	for _, f := range Faults {
		if a.faults[f] == 0 {
			t.Errorf("%s hit no statement", f)
		}
	}
	for _, what := range wanted {
		if a.seen[what] == 0 {
			t.Errorf("%s: got none in all seeds (saw %v)", what, slices.Sorted(maps.Keys(a.seen)))
		}
	}
}
