package assign_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coordd/coordd/assign"
)

func TestStrategiesHaveNames(t *testing.T) {
	want := []assign.Placer{assign.ConsistentHash{}, assign.RoundRobin{}, assign.Random{}, assign.LeastLoaded{}, assign.WeightedCPU{}}
	for i, name := range assign.Strategies() {
		if got, err := assign.PlacerByName(name); err != nil || got != want[i] {
			t.Errorf("%s: got %#v, %v, want %#v", name, got, err, want[i])
		}
	}
	if got, err := assign.PlacerByName(""); err != nil || got != want[0] {
		t.Errorf("no name: got %#v, %v, want %#v", got, err, want[0])
	}
	_, err := assign.PlacerByName("best")
	if err == nil || !strings.Contains(err.Error(), `"best"`) || !strings.Contains(err.Error(), "least-loaded") {
		t.Errorf("an unknown name: got %v, want an error that names it and those that are known", err)
	}
}

func TestStickyWithoutAPlacerIsConsistentHash(t *testing.T) {
	if got, want := assign.Sticky(nil), assign.Sticky(assign.ConsistentHash{}); got != want {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

// A group whose servers are all new, under the names of the old ones, is placed as it was.
func TestConsistentHashGoesByNames(t *testing.T) {
	p := assign.Sticky(assign.ConsistentHash{})
	v := assign.View{Group: "g", Members: servers(5), Owners: none(1000), Load: slices.Repeat([]float64{1}, 1000)}
	name := func(owners []int) (names []string) {
		for _, owner := range owners {
			names = append(names, v.Members[owner].Name)
		}
		return names
	}
	before := name(p.Plan(v))
	for i := range v.Members {
		v.Members[i].ID += "-again"
	}
	slices.Reverse(v.Members)
	if after := name(p.Plan(v)); !slices.Equal(after, before) {
		t.Errorf("slots that moved: got some, want none")
	}
}

// Below the quota a slot goes where the hash sends it: with a server more, to that one or to where it went before.
func TestConsistentHashSendsASlotToTheSameMembers(t *testing.T) {
	open := func(n int) (c []*assign.Candidate) {
		for i := range n {
			c = append(c, &assign.Candidate{Member: assign.Member{Weight: 1}, Hash: uint64(i+1) * 0x9e3779b97f4a7c15})
		}
		return c
	}
	var moved int
	for i := range uint64(10_000) {
		s := assign.Slot{Hash: i * 0xbf58476d1ce4e5b9}
		before, after := assign.ConsistentHash{}.Place(s, open(9)), assign.ConsistentHash{}.Place(s, open(10))
		if after != before {
			moved++
			if after != 9 {
				t.Fatalf("slot %d went from %d to %d, want 9", i, before, after)
			}
		}
	}
	if moved < 900 || moved > 1100 {
		t.Errorf("slots of 10000 that went to the tenth member: got %d, want 900 to 1100", moved)
	}
}

func TestConsistentHashRespectsWeights(t *testing.T) {
	var open []*assign.Candidate
	for i, w := range []float64{1, 2, 4, 1} {
		open = append(open, &assign.Candidate{Member: assign.Member{Weight: w}, Hash: uint64(i+1) * 0x9e3779b97f4a7c15})
	}
	got := make([]int, 4)
	for i := range uint64(80_000) {
		got[assign.ConsistentHash{}.Place(assign.Slot{Hash: i * 0xbf58476d1ce4e5b9}, open)]++
	}
	for i, want := range []int{10_000, 20_000, 40_000, 10_000} {
		if got[i] < want*95/100 || got[i] > want*105/100 {
			t.Errorf("weight %g: got %d slots of 80000, want %d within 5 %%", open[i].Weight, got[i], want)
		}
	}
}

func TestRoundRobinDealsInTurn(t *testing.T) {
	p := assign.Sticky(assign.RoundRobin{})
	v := assign.View{Group: "g", Members: servers(4), Owners: none(12), Load: slices.Repeat([]float64{1}, 12)}
	if got, want := p.Plan(v), []int{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRandomIsDrawnFromItsSeed(t *testing.T) {
	v := assign.View{Group: "g", Members: servers(4), Owners: none(100), Load: slices.Repeat([]float64{1}, 100)}
	plan := func(seed uint64) string { return fmt.Sprint(assign.Sticky(assign.Random{Seed: seed}).Plan(v)) }
	one, again := plan(1), plan(1)
	if one != again {
		t.Error("two plans with one seed differ")
	}
	if one == plan(2) {
		t.Error("plans with two seeds are the same")
	}
}

func TestLeastLoadedTakesTheEmptiest(t *testing.T) {
	p := assign.Sticky(assign.LeastLoaded{})
	v := assign.View{Group: "g", Members: servers(3), Owners: []int{0, 1, 2, -1}, Load: []float64{5, 3, 4, 1}}
	if got, want := p.Plan(v), []int{0, 1, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// mine prefers members of its own kind: what a placer of a user's own may look like.
type mine struct{}

func (mine) Place(_ assign.Slot, open []*assign.Candidate) int {
	return max(0, slices.IndexFunc(open, func(c *assign.Candidate) bool { return c.Name == "app-1" }))
}

func TestAPlacerOfOnesOwn(t *testing.T) {
	p := assign.Sticky(mine{})
	v := assign.View{Group: "g", Members: servers(3), Owners: none(9), Load: slices.Repeat([]float64{1}, 9)}
	if got, want := p.Plan(v), []int{1, 1, 1, 0, 0, 0, 2, 2, 2}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: app-1 first, and then who has room", got, want)
	}
}
