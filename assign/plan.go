// Package assign spreads the jobs of a group over the servers that are alive.
//
// A job hashes to one of its group's slots ([SlotOf]), and slots have owners: members. Who is
// to own what is decided by a [Planner], a pure function of the members, the slots with their
// load, and who owns them now. It reads no clock, throws no dice and asks nobody, so the same
// view gives the same plan in any process, and a plan can be shown before it is carried out.
//
// [Sticky] makes a planner out of a [Placer]. It moves next to nothing beyond what must move:
//
//   - a slot stays where it is while its owner lives and is eligible;
//   - when a member comes, those that hold most give it its share, and nothing else moves;
//   - when a member goes, its slots are placed, and nothing else moves, unless one of them is so
//     heavy that another must make room for it;
//   - a slot that is reserved for a server that restarts waits for a member of its name;
//   - when loads drift, a member that is more than 2 % over its share gives the excess away, and
//     one that is more than 5 % under it is filled up, at most a twentieth of the load in one
//     plan. Who is within this dead band is left alone.
//
// The load decides. Slots without load are spread by their number, as jobs may come to them,
// and within a band of 10 %; no slot with load moves for their sake.
//
// What a plan costs: one pass over the slots, and for each slot that is placed one over the
// members. docs/balance.md has what that takes, and how even the shares become.
package assign

// Member is a live member as a planner sees it.
type Member struct {
	ID   string // of the incarnation
	Name string // what stays the same when the server restarts

	// Weight is the member's share of the load relative to the others'. What is not a positive
	// number counts as 1, and what is beyond a millionth or a million as that.
	Weight float64

	// CPU is the busy share of its machine, 0 to 1; what is not above 0 is not known. Only
	// [WeightedCPU] looks at it.
	CPU float64

	// Eligible members may own slots. One that is not (it drains, or does not match the group's
	// selector) keeps none.
	Eligible bool
}

// View is all that a plan is made of. A planner does not write to it.
type View struct {
	Group   string
	Members []Member // those that live, sorted by ID

	// Owners holds for each slot the index of its owner in Members, or -1: it has none. An index
	// that is not there counts as -1.
	Owners []int

	// Load is for each slot the number of its jobs, or the sum of their weights. What is
	// missing or not a positive number counts as no load, and what is beyond 1e-9 or 1e12 as that.
	Load []float64

	// Reserved holds for each slot the name for which it is kept while it has no owner, as that
	// server restarts; empty: none. Nil: no slot is reserved.
	Reserved []string
}

// Planner decides who owns what. It is a pure function of the view: it neither writes to it nor
// keeps anything of it, and may be called from several goroutines at once. assigntest has the
// tests that every planner should pass.
type Planner interface {
	// Plan returns for each slot of v.Owners the index of its owner to be in v.Members. It is
	// -1 where nobody is eligible, and where the slot has no owner and is reserved for a name
	// that no eligible member bears.
	Plan(v View) (owners []int)
}

const leastLoad, mostLoad = 1e-9, 1e12

// load is what a slot weighs, as a number that can be reckoned with.
func (v *View) load(slot int) float64 {
	if slot >= len(v.Load) || !(v.Load[slot] > 0) { // which NaN is not either
		return 0
	}
	return min(max(v.Load[slot], leastLoad), mostLoad)
}
