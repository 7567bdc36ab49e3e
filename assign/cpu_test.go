package assign_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/coordd/coordd/assign"
)

// machines run what a planner gives them. A member's CPU is what its load takes of its power,
// and whatever else runs there, as it was one plan ago.
type machines struct {
	planner assign.Planner
	view    assign.View
	power   []float64
	other   []float64
	rand    *rand.Rand
}

func newMachines(power ...float64) *machines {
	const slots = 2000
	m := &machines{planner: assign.Sticky(assign.WeightedCPU{}), power: power, other: make([]float64, len(power)), rand: rand.New(rand.NewPCG(1, 2))}
	m.view = assign.View{Group: "g", Members: servers(len(power)), Owners: none(slots), Load: slices.Repeat([]float64{1}, slots)}
	m.view.Owners = m.planner.Plan(m.view)
	return m
}

// round reads the CPUs, makes a plan of what was read the round before, and returns what moved
// and the largest change of a share, as a part of an even one.
func (m *machines) round() (moved int, step float64) {
	before, _ := sums(m.view, m.view.Owners)
	owners := m.planner.Plan(m.view)
	moved = len(differ(owners, m.view.Owners))
	m.view.Owners = owners
	after, _ := sums(m.view, owners)
	even := float64(len(owners)) / float64(len(m.power))
	for i := range before {
		step = max(step, math.Abs(after[i]-before[i])/even)
		noise := 0.02 * (2*m.rand.Float64() - 1)
		m.view.Members[i].CPU = min(max(0.4*before[i]/even/m.power[i]+m.other[i]+noise, 0.01), 1)
	}
	return moved, step
}

func (m *machines) shares() []float64 {
	loads, _ := sums(m.view, m.view.Owners)
	return loads
}

func TestWeightedCPUSettlesWithoutSwinging(t *testing.T) {
	m := newMachines(0.5, 1, 1, 1, 2)
	var late int
	for round := range 200 {
		moved, step := m.round()
		if step > 0.11 {
			t.Fatalf("round %d: a share changed by %.3f of an even one, want 0.1 at most", round, step)
		}
		if round >= 50 {
			late += moved
		}
	}
	s := m.shares()
	if s[0] > 0.8*s[1] || s[4] < 1.2*s[1] {
		t.Errorf("shares of half, full and double power: got %v, %v, %v, want less than 0.8, 1, more than 1.2 of the middle one", s[0], s[1], s[4])
	}
	if most := 100; late > most {
		t.Errorf("slots of 2000 moved in the last 150 plans: got %d, want %d at most", late, most)
	}
}

func TestWeightedCPURelievesABusyMachine(t *testing.T) {
	m := newMachines(1, 1, 1, 1)
	m.other[0] = 1 // something else has all of it
	for range 200 {
		m.round()
	}
	if s := m.shares(); s[0] > 0.7*500 {
		t.Errorf("shares: got %v, want less than 350 of the first", s)
	}
}

func TestWeightedCPUNeverGoesToZero(t *testing.T) {
	m := newMachines(slices.Repeat([]float64{1}, 20)...)
	for i := range m.view.Members {
		m.view.Members[i].CPU = 0.01
	}
	m.view.Members[0].CPU = 1
	for range 50 {
		m.view.Owners = m.planner.Plan(m.view)
	}
	if s := m.shares(); s[0] < 0.24*100 || s[0] > 0.3*100 {
		t.Errorf("share of the only busy machine: got %v, want a quarter of 100", s[0])
	}
}

func TestWeightedCPULeavesMachinesAlikeAlone(t *testing.T) {
	m := newMachines(1, 1, 1, 1)
	for round := range 100 {
		if moved, _ := m.round(); moved > 0 {
			t.Fatalf("round %d: got %d slots moved, want 0", round, moved)
		}
	}
}

func TestWeightedCPUWithoutReadingsGoesByWeight(t *testing.T) {
	m := newMachines(1, 1)
	m.view.Members[1].Weight = 3
	for range 20 {
		m.view.Owners = m.planner.Plan(m.view)
	}
	if s := m.shares(); s[0] < 490 || s[0] > 510 {
		t.Errorf("shares by weights 1 and 3: got %v, want [500 1500] within 2 %%", s)
	}
}

func TestWeightedCPUKeepsItsSharesOverARestart(t *testing.T) {
	m := newMachines(0.5, 1, 1, 1, 2)
	for range 100 {
		m.round()
	}
	v := m.view
	v.Owners, v.Reserved = slices.Clone(v.Owners), make([]string, len(v.Owners))
	want := slices.Clone(v.Owners)
	for slot, owner := range v.Owners {
		if owner == 1 {
			v.Owners[slot], v.Reserved[slot] = -1, "app-1"
		}
	}
	v.Members = slices.Clone(v.Members)
	v.Members[1].ID, v.Members[1].CPU = "0001-again", 0
	if moved := differ(m.planner.Plan(v), want); len(moved) > 0 {
		t.Errorf("slots moved over a restart: got %d, want 0", len(moved))
	}
}
