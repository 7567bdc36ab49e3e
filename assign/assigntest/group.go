package assigntest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/coordd/coordd/assign"
)

// group is a job group whose plans are carried out at once.
type group struct {
	planner  assign.Planner
	rand     *rand.Rand
	members  []assign.Member
	owners   []string // ids, by slot; empty: nobody
	load     []float64
	reserved []string
	born     int
	huge     bool // one slot may come to outweigh the others
}

// newGroup is a group of so many slots and members, in which no slot has an owner yet.
func newGroup(p assign.Planner, seed uint64, slots, members int) *group {
	g := &group{planner: p, rand: rand.New(rand.NewPCG(seed, 0)), owners: make([]string, slots), load: make([]float64, slots), reserved: make([]string, slots)}
	for range members {
		g.join("", 1)
	}
	return g
}

// join adds a member; of a new name if it is given none.
func (g *group) join(name string, weight float64) {
	g.born++
	if name == "" {
		name = fmt.Sprintf("app-%d", g.born)
	}
	g.members = append(g.members, assign.Member{ID: fmt.Sprintf("%06d", g.born), Name: name, Weight: weight, Eligible: true})
}

// leave removes a member, and reserves its slots if it is to come back.
func (g *group) leave(i int, back bool) assign.Member {
	gone := g.members[i]
	g.members = slices.Delete(slices.Clone(g.members), i, i+1)
	for slot, owner := range g.owners {
		if owner == gone.ID && back {
			g.reserved[slot] = gone.Name
		}
	}
	return gone
}

// addJobs adds jobs to slots by chance.
func (g *group) addJobs(n int) {
	for range n {
		g.load[g.rand.IntN(len(g.load))]++
	}
}

func (g *group) view() assign.View {
	index := map[string]int{}
	for i, m := range g.members {
		index[m.ID] = i
	}
	v := assign.View{Group: "test", Members: slices.Clone(g.members), Load: slices.Clone(g.load), Reserved: slices.Clone(g.reserved)}
	for _, id := range g.owners {
		if i, lives := index[id]; lives {
			v.Owners = append(v.Owners, i)
		} else {
			v.Owners = append(v.Owners, -1)
		}
	}
	return v
}

// plan makes a plan, checks it, carries it out, and returns which slots changed their owner.
func (g *group) plan() (changed []int, err error) {
	v := g.view()
	owners := g.planner.Plan(v)
	if err := CheckPlan(v, owners); err != nil {
		return nil, fmt.Errorf("%s: %w", g, err)
	}
	for slot, owner := range owners {
		id := ""
		if owner >= 0 {
			id, g.reserved[slot] = v.Members[owner].ID, ""
		}
		if id != g.owners[slot] && owner >= 0 {
			changed = append(changed, slot)
			g.owners[slot] = id
		}
	}
	return changed, nil
}

// rounds are how many plans may change anything after one event. A planner that moves a
// little in each has come to rest long before.
const rounds = 200

// settle plans until nothing changes and returns the load that was moved.
func (g *group) settle() (moved float64, err error) {
	before := g.String()
	had := make(map[int][]string) // the owners that each slot has left
	for range rounds {
		old := slices.Clone(g.owners)
		changed, err := g.plan()
		if err != nil || len(changed) == 0 {
			return moved, err
		}
		for _, slot := range changed {
			moved += g.load[slot]
			had[slot] = append(had[slot], old[slot])
			if !g.huge && slices.Contains(had[slot], g.owners[slot]) {
				return moved, fmt.Errorf("%s: slot %d went back to %s, which it had left, while nothing changed", before, slot, g.owners[slot])
			}
		}
	}
	return moved, fmt.Errorf("%s: plan %d, with nothing changed meanwhile, still moves slots", before, rounds)
}

// quotas are the loads that members should have.
func (g *group) quotas() (quota, load map[string]float64) {
	var sum, weights float64
	quota, load = map[string]float64{}, map[string]float64{}
	for _, m := range g.members {
		load[m.ID] = 0
	}
	for slot, l := range g.load {
		if g.reserved[slot] != "" && !g.lives(g.owners[slot]) {
			continue
		}
		sum += l
		if g.lives(g.owners[slot]) {
			load[g.owners[slot]] += l
		}
	}
	for _, m := range g.members {
		weights += m.Weight
	}
	for _, m := range g.members {
		quota[m.ID] = sum * m.Weight / weights
	}
	return quota, load
}

func (g *group) lives(id string) bool {
	return slices.ContainsFunc(g.members, func(m assign.Member) bool { return m.ID == id })
}

// lack is what members have less than they should: no plan that makes shares even can move less.
func (g *group) lack() (sum float64) {
	quota, load := g.quotas()
	for _, id := range slices.Sorted(maps.Keys(quota)) {
		sum += max(0, quota[id]-load[id])
	}
	return sum
}

// largest is the load of the largest slot.
func (g *group) largest() float64 { return slices.Max(g.load) }

func (g *group) String() string {
	var sum float64
	for _, l := range g.load {
		sum += l
	}
	return fmt.Sprintf("%d slots, load %g, %d members", len(g.owners), sum, len(g.members))
}
