package assigntest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/coordd/coordd/assign"
)

func eachStrategy(t *testing.T, test func(t *testing.T, p assign.Planner)) {
	for _, name := range assign.Strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := assign.PlacerByName(name)
			if err != nil {
				t.Fatal(err)
			}
			test(t, assign.Sticky(p))
		})
	}
}

func TestEachStrategyKeepsTheRules(t *testing.T) {
	eachStrategy(t, func(t *testing.T, p assign.Planner) {
		if err := TestPlanner(p); err != nil {
			t.Fatal(err)
		}
	})
}

// planFunc is a planner that is one function.
type planFunc func(v assign.View) []int

func (f planFunc) Plan(v assign.View) []int { return f(v) }

// spoiled is a good planner whose plans are changed before they are returned.
func spoiled(change func(v assign.View, owners []int)) assign.Planner {
	good := assign.Sticky(assign.ConsistentHash{})
	return planFunc(func(v assign.View) []int {
		owners := good.Plan(v)
		change(v, owners)
		return owners
	})
}

// eligible are the indexes of those who may own slots.
func eligible(v assign.View) (those []int) {
	for i, m := range v.Members {
		if m.Eligible {
			those = append(those, i)
		}
	}
	return those
}

func TestABadPlannerIsFound(t *testing.T) {
	for name, bad := range map[string]struct {
		planner assign.Planner
		rule    int
	}{
		"forgets a slot": {spoiled(func(_ assign.View, owners []int) {
			if len(owners) > 2 {
				owners[2] = -1
			}
		}), 0},
		"gives a slot to one that drains": {spoiled(func(v assign.View, owners []int) {
			if len(owners) > 0 && len(v.Members) > 2 {
				owners[0] = 2
			}
		}), 0},
		"counts on a member": {planFunc(func(v assign.View) []int {
			return slices.Repeat([]int{slices.Index(v.Members, v.Members[0])}, len(v.Owners))
		}), 0},
		"returns too few": {planFunc(func(assign.View) []int { return nil }), 0},
		"throws dice": {spoiled(func(v assign.View, owners []int) {
			if those := eligible(v); len(those) > 0 && len(owners) > 0 {
				owners[0] = those[rand.IntN(len(those))]
			}
		}), 1},
		"writes to the view": {spoiled(func(v assign.View, owners []int) { copy(v.Owners, owners) }), 1},
		"never rests": {spoiled(func(v assign.View, owners []int) {
			if those := eligible(v); len(those) > 0 && len(owners) > 0 && v.Owners[0] >= 0 {
				owners[0] = those[(slices.Index(those, v.Owners[0])+1)%len(those)]
			}
		}), 2},
		"gives the first all": {spoiled(func(v assign.View, owners []int) {
			for slot, owner := range owners {
				if owner >= 0 {
					owners[slot] = eligible(v)[0]
				}
			}
		}), 3},
		"remembers nothing": {spoiled(func(v assign.View, owners []int) {
			for slot, owner := range owners {
				if owner >= 0 {
					owners[slot] = eligible(v)[slot%len(eligible(v))]
				}
			}
		}), 4},
		"does not wait for a restart": {planFunc(func(v assign.View) []int {
			v.Reserved = nil
			return assign.Sticky(assign.ConsistentHash{}).Plan(v)
		}), 5},
		"swings with the loads": {spoiled(func(v assign.View, owners []int) {
			those := eligible(v)
			if len(those) < 3 || len(owners) < 512 || v.Load[0] < 50 {
				return
			}
			owners[0] = those[(slices.Index(those, owners[0])+1)%len(those)]
		}), 6},
	} {
		if err := rules[bad.rule].kept(bad.planner); err == nil {
			t.Errorf("a planner that %s: got no error, want that it breaks the rule %q", name, rules[bad.rule].name)
		}
	}
}

func TestTheErrorNamesTheRules(t *testing.T) {
	err := TestPlanner(planFunc(func(v assign.View) []int { return make([]int, len(v.Owners)) }))
	for _, rule := range []int{0, 3, 5} {
		if err == nil || !strings.Contains(err.Error(), rules[rule].name) {
			t.Errorf("got %v, want an error that names the rule %q", err, rules[rule].name)
		}
	}
}

// A tenth of the slots at a time, and a new plan after each: as a leader that bounds what is in
// flight carries plans out.
func TestAPlanCarriedOutInPartsMovesNoMore(t *testing.T) {
	eachStrategy(t, func(t *testing.T, p assign.Planner) {
		for _, servers := range []int{1, 3, 20} {
			g := newGroup(p, 8, 4096, servers)
			g.addJobs(100_000)
			must(t, g)
			g.join("", 1)
			lack, moved := g.lack(), 0.0
			for round := 0; ; round++ {
				before := slices.Clone(g.owners)
				changed, err := g.plan()
				if err != nil {
					t.Fatal(err)
				}
				if len(changed) == 0 {
					break
				}
				if round == 100 {
					t.Fatalf("%s: plan 100 still moves slots", g)
				}
				for i, slot := range changed {
					if i < len(g.owners)/10 {
						moved += g.load[slot]
					} else {
						g.owners[slot] = before[slot]
					}
				}
			}
			if moved > 1.05*lack {
				t.Errorf("%s: jobs moved: got %g, want %g and a twentieth at most", g, moved, lack)
			}
			g.mustBeEven(t)
		}
	})
}

// As good as numbers can be: see docs/balance.md for more of them.
func TestSharesOfManyJobs(t *testing.T) {
	for _, servers := range []int{3, 10, 100} {
		for _, jobs := range []int{1000, 100_000, 1_000_000} {
			t.Run(fmt.Sprintf("%d jobs on %d servers", jobs, servers), func(t *testing.T) {
				eachStrategy(t, func(t *testing.T, p assign.Planner) {
					// With 40 slots a server a heavy one may fit nowhere, until another has made
					// room. Only the default leaves servers uneven enough for it to be rare.
					most := 1.10
					if p == assign.Sticky(assign.ConsistentHash{}) {
						most = 1.05
					}
					manyJobs(t, p, jobs, servers, most)
				})
			})
		}
	}
}

// manyJobs lets jobs come to a group that had none, and then a server come and another go, six
// times. No more jobs may move than those that must, times most.
func manyJobs(t *testing.T, p assign.Planner, jobs, servers int, most float64) {
	g := newGroup(p, 7, 4096, servers)
	must(t, g)
	g.addJobs(jobs)
	must(t, g)
	g.mustBeEven(t)
	for i := range 12 {
		before, total, share := slices.Clone(g.owners), float64(jobs), 0.0
		if i%2 == 0 {
			g.join("", 1)
			share = total / float64(len(g.members))
		} else {
			gone := g.leave(g.rand.IntN(servers), false)
			share = g.loadOf(gone.ID)
		}
		newest := g.members[len(g.members)-1].ID
		moved, needless := must(t, g), 0.0
		for slot, owner := range g.owners {
			if owner != before[slot] && g.lives(before[slot]) && (i%2 == 1 || owner != newest) {
				needless += g.load[slot]
			}
		}
		g.mustBeEven(t)
		if float64(jobs)/float64(servers) < 100 {
			continue // a job is a tenth of a server's, and one that moves more or less is too many
		}
		if moved > most*share {
			t.Errorf("change %d: jobs moved: got %g, want %g times %g at most", i, moved, most, share)
		}
		if needless > 0.001*total {
			t.Errorf("change %d: jobs moved that had neither to go nor to come: got %g of %g, want a thousandth at most", i, needless, total)
		}
	}
}

func must(t *testing.T, g *group) float64 {
	t.Helper()
	moved, err := g.settle()
	if err != nil {
		t.Fatal(err)
	}
	return moved
}

func (g *group) loadOf(id string) (sum float64) {
	for slot, owner := range g.owners {
		if owner == id {
			sum += g.load[slot]
		}
	}
	return sum
}

// mustBeEven allows for 2 % more than the mean, or for what whole jobs allow at best. Slots
// of several jobs cannot always be divided so.
func (g *group) mustBeEven(t *testing.T) {
	t.Helper()
	_, load := g.quotas()
	var sum, most float64
	for _, l := range load {
		sum += l
		most = max(most, l)
	}
	mean := sum / float64(len(load))
	if allowed := max(1.02*mean, math.Ceil(mean)); most > allowed+1e-6 {
		t.Errorf("%s: most jobs of a server: got %g, want %g at most, as the mean is %g", g, most, allowed, mean)
	}
}
