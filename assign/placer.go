package assign

import (
	"fmt"
	"math"
	"strings"
)

// Slot is one that is to be given to somebody.
type Slot struct {
	Number int
	Size   float64 // its load, or 1: it has none, and slots without load are counted
	Hash   uint64  // of the group's name and the number: the same in every plan
}

// Candidate is a member that may be given a slot. Quota and Size are of slots with load while
// such are placed, and of slots without while those are.
type Candidate struct {
	Member         // its Weight is the one that the shares are reckoned by
	Quota  float64 // its share; above 0
	Size   float64 // the sum of the sizes of what it holds in this plan so far
	Placed int     // how many slots this plan has given it
	Hash   uint64  // of its name: the same for each incarnation of a server

	index int // in View.Members
}

// Fill is how much of its share a candidate would have with a slot more; 1: all.
func (c *Candidate) Fill(s Slot) float64 { return (c.Size + s.Size) / c.Quota }

// fill is how much of its share a candidate has; 1: all.
func (c *Candidate) fill() float64 { return c.Size / c.Quota }

// Placer chooses where a slot goes that has no owner or has to leave its owner. It is asked
// for one slot after the other, the largest first, and chooses among those that have room for
// it; so it need not care for balance, only for what it prefers. It must be deterministic, keep
// nothing between calls, and neither change nor keep what it is given.
type Placer interface {
	// Place returns the index in open of the new owner. There is always one at least.
	Place(s Slot, open []*Candidate) int
}

// Weigher is for a Placer that decides on the shares too. Sticky asks it once a plan, in place
// of the members' weights.
type Weigher interface {
	// Weights returns a weight for each of v.Members.
	Weights(v View) []float64
}

// DefaultStrategy is the name of the placer for whoever names none.
const DefaultStrategy = "consistent-hash"

// Strategies are the names that [PlacerByName] knows.
func Strategies() []string {
	return []string{DefaultStrategy, "round-robin", "random", "least-loaded", "weighted-cpu"}
}

// PlacerByName is the placer of a strategy, as the database names them; of an empty name, the
// default one.
func PlacerByName(name string) (Placer, error) {
	switch name {
	case "", DefaultStrategy:
		return ConsistentHash{}, nil
	case "round-robin":
		return RoundRobin{}, nil
	case "random":
		return Random{}, nil
	case "least-loaded":
		return LeastLoaded{}, nil
	case "weighted-cpu":
		return WeightedCPU{}, nil
	}
	return nil, fmt.Errorf("strategy %q is not known: it is one of %s", name, strings.Join(Strategies(), ", "))
}

// ConsistentHash gives a slot to the candidate that scores highest for it by the hash of both:
// rendezvous hashing (Thaler and Ravishankar 1998), with scores that respect weights
// (Schindelhauer and Schomaker 2005), among those below their quota (as in consistent hashing
// with bounded loads, Mirrokni, Thorup and Zadimoghaddam 2018). A server that comes back under its name
// is preferred for the same slots again.
type ConsistentHash struct{}

// Place implements Placer.
func (ConsistentHash) Place(s Slot, open []*Candidate) int {
	best, highest := 0, mix(s.Hash, open[0].Hash)
	for i, c := range open[1:] {
		h := mix(s.Hash, c.Hash)
		if outscores(h, c.Weight, highest, open[best].Weight) {
			best, highest = i+1, h
		}
	}
	return best
}

// outscores says whether hash a under weight v scores higher than b under w. The score is
// -weight / ln(hash as a fraction of all).
func outscores(a uint64, v float64, b uint64, w float64) bool {
	if v == w { // spares the logarithms
		return a > b
	}
	return v*math.Log(fraction(b)) < w*math.Log(fraction(a))
}

// fraction maps a hash to a number between 0 and 1, both excluded.
func fraction(h uint64) float64 { return (float64(h>>12) + 0.5) / (1 << 52) }

// RoundRobin deals slots out in turn, to who has been given the fewest in this plan for its
// weight. Each slot has its own place to begin, so that several plans with a slot each do
// not always begin with the same member.
type RoundRobin struct{}

// Place implements Placer.
func (RoundRobin) Place(s Slot, open []*Candidate) int {
	begin := s.Number % len(open)
	best, fewest := begin, math.Inf(1)
	for i := range open {
		at := begin + i
		if at >= len(open) {
			at -= len(open)
		}
		if turns := float64(open[at].Placed) / open[at].Weight; turns < fewest {
			best, fewest = at, turns
		}
	}
	return best
}

// Random draws two candidates for each slot and takes the emptier one (the power of two
// choices, Mitzenmacher 2001). What is drawn depends on Seed, the group and the slot only.
type Random struct {
	Seed uint64
}

// Place implements Placer.
func (r Random) Place(s Slot, open []*Candidate) int {
	h := mix(s.Hash, r.Seed)
	n := uint64(len(open))
	a, b := int(h>>32%n), int(h&math.MaxUint32%n)
	if open[b].Fill(s) < open[a].Fill(s) {
		return b
	}
	return a
}

// LeastLoaded gives a slot to whoever has the least of its share with it. As the largest come
// first, this is the rule of the longest processing time (Graham 1969): the evenest of all, and
// each slot may go anywhere.
type LeastLoaded struct{}

// Place implements Placer.
func (LeastLoaded) Place(s Slot, open []*Candidate) int {
	best := 0
	for i, c := range open {
		if c.Fill(s) < open[best].Fill(s) {
			best = i
		}
	}
	return best
}
