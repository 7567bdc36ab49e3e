package assign_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/coordd/coordd/assign"
)

// planners are those of each strategy, by its name.
func planners(t testing.TB) map[string]assign.Planner {
	t.Helper()
	all := map[string]assign.Planner{}
	for _, name := range assign.Strategies() {
		p, err := assign.PlacerByName(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = assign.Sticky(p)
	}
	return all
}

// servers are so many members alike.
func servers(n int) (members []assign.Member) {
	for i := range n {
		members = append(members, assign.Member{ID: fmt.Sprintf("%04d", i), Name: fmt.Sprintf("app-%d", i), Weight: 1, Eligible: true})
	}
	return members
}

// none is so many slots without an owner.
func none(slots int) []int { return slices.Repeat([]int{-1}, slots) }

// sums are the members' loads under a plan, and how many slots have none.
func sums(v assign.View, owners []int) (loads []float64, orphans int) {
	loads = make([]float64, len(v.Members))
	for slot, owner := range owners {
		if owner < 0 {
			orphans++
		} else {
			loads[owner] += v.Load[slot]
		}
	}
	return loads, orphans
}

// differ are the slots on which two plans differ.
func differ(a, b []int) (slots []int) {
	for i := range a {
		if a[i] != b[i] {
			slots = append(slots, i)
		}
	}
	return slots
}

func TestAHundredJobsOnThreeServers(t *testing.T) {
	for name, p := range planners(t) {
		v := assign.View{Group: "g", Members: servers(3), Owners: none(4096), Load: make([]float64, 4096)}
		v.Owners = p.Plan(v) // before there is a job
		for i := range 100 {
			v.Load[assign.SlotOf(fmt.Sprintf("job-%d", i), 4096)]++
		}
		for range 5 {
			v.Owners = p.Plan(v)
		}
		loads, _ := sums(v, v.Owners)
		slices.Sort(loads)
		if want := []float64{33, 33, 34}; !slices.Equal(loads, want) {
			t.Errorf("%s: jobs of three servers: got %v, want %v", name, loads, want)
		}
	}
}

func TestAReservedSlotWaitsForItsName(t *testing.T) {
	v := assign.View{Group: "g", Members: servers(2), Owners: []int{0, 0, -1, -1}, Load: []float64{1, 1, 1, 1}, Reserved: []string{"", "", "app-9", "app-1"}}
	for name, p := range planners(t) {
		if got, want := p.Plan(v), []int{0, 0, -1, 1}; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestAReservationOfALivingOwnersSlotMeansNothing(t *testing.T) {
	v := assign.View{Group: "g", Members: servers(2), Owners: []int{0, 1}, Load: []float64{1, 1}, Reserved: []string{"app-1", "app-9"}}
	for name, p := range planners(t) {
		if got, want := p.Plan(v), []int{0, 1}; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestNothingIsLeveledWhileAServerRestarts(t *testing.T) {
	v := assign.View{Group: "g", Members: servers(2), Owners: []int{0, 0, 0, 1, -1, -1}, Load: []float64{1, 1, 1, 1, 1, 1}, Reserved: []string{"", "", "", "", "app-9", "app-9"}}
	for name, p := range planners(t) {
		if got := p.Plan(v); !slices.Equal(got, v.Owners) {
			t.Errorf("%s: got %v, want %v", name, got, v.Owners)
		}
	}
	v.Members = servers(3) // one that has nothing is filled all the same
	for name, p := range planners(t) {
		got := p.Plan(v)
		if moved := differ(got, v.Owners); len(moved) != 1 || got[moved[0]] != 2 {
			t.Errorf("%s: got %v, want one slot of %v moved to 2", name, got, v.Owners)
		}
	}
}

func TestWhoDrainsKeepsNothing(t *testing.T) {
	for name, p := range planners(t) {
		v := assign.View{Group: "g", Members: servers(3), Owners: none(300), Load: slices.Repeat([]float64{1}, 300)}
		v.Owners = p.Plan(v)
		v.Members[1].Eligible = false
		got := p.Plan(v)
		for _, slot := range differ(got, v.Owners) {
			if v.Owners[slot] != 1 {
				t.Errorf("%s: slot %d moved from %d to %d, and only those of 1 had to", name, slot, v.Owners[slot], got[slot])
			}
		}
		if loads, orphans := sums(v, got); !slices.Equal(loads, []float64{150, 0, 150}) || orphans > 0 {
			t.Errorf("%s: got loads %v and %d slots without an owner, want [150 0 150] and 0", name, loads, orphans)
		}
	}
}

func TestSharesFollowWeights(t *testing.T) {
	for name, p := range planners(t) {
		v := assign.View{Group: "g", Members: servers(3), Owners: none(700), Load: slices.Repeat([]float64{10}, 700)}
		v.Members[1].Weight, v.Members[2].Weight = 2, 4
		loads, _ := sums(v, p.Plan(v))
		for i, want := range []float64{1000, 2000, 4000} {
			if loads[i] < want*0.98 || loads[i] > want*1.02 {
				t.Errorf("%s: load of weight %g: got %g, want %g within 2 %%", name, v.Members[i].Weight, loads[i], want)
			}
		}
	}
}

func TestAHugeSlotHasItsOwnerForItself(t *testing.T) {
	for name, p := range planners(t) {
		v := assign.View{Group: "g", Members: servers(3), Owners: slices.Repeat([]int{0}, 101), Load: append(slices.Repeat([]float64{1}, 100), 1000)}
		for range 100 {
			v.Owners = p.Plan(v)
		}
		loads, _ := sums(v, v.Owners)
		if !slices.Equal(loads, []float64{1000, 50, 50}) {
			t.Errorf("%s: got loads %v, want [1000 50 50]", name, loads)
		}
	}
}

func TestEmptySlotsAreSpreadApartFromTheOthers(t *testing.T) {
	for name, p := range planners(t) {
		v := assign.View{Group: "g", Members: servers(4), Owners: none(1000), Load: make([]float64, 1000)}
		for slot := range 40 {
			v.Load[slot] = 1
		}
		empty := make([]int, 4)
		owners := p.Plan(v)
		for slot, owner := range owners {
			if v.Load[slot] == 0 {
				empty[owner]++
			}
		}
		loads, _ := sums(v, owners)
		if !slices.Equal(loads, []float64{10, 10, 10, 10}) || slices.Min(empty) < 230 || slices.Max(empty) > 250 {
			t.Errorf("%s: got loads %v and %v empty slots, want 10 and about 240 each", name, loads, empty)
		}
	}
}

func TestOnePlanLevelsNoMoreThanItsBudget(t *testing.T) {
	for name, p := range planners(t) {
		v := assign.View{Group: "g", Members: servers(2), Owners: make([]int, 1000), Load: slices.Repeat([]float64{1}, 1000)}
		for slot := range 300 {
			v.Owners[slot] = 1
		}
		if moved := len(differ(p.Plan(v), v.Owners)); moved != 50 {
			t.Errorf("%s: 700 and 300 of 1000 slots: got %d moved, want 50", name, moved)
		}
		for slot := range 300 {
			v.Owners[slot] = 0 // now 1 has nothing, as if it had just come
		}
		if moved := len(differ(p.Plan(v), v.Owners)); moved < 490 || moved > 500 {
			t.Errorf("%s: 1000 and no slots: got %d moved, want 490 to 500", name, moved)
		}
	}
}

func TestWhoIsWithinTheBandIsLeftAlone(t *testing.T) {
	v := assign.View{Group: "g", Members: servers(2), Owners: make([]int, 1000), Load: slices.Repeat([]float64{1}, 1000)}
	for slot := range 490 {
		v.Owners[slot] = 1
	}
	for name, p := range planners(t) {
		if moved := differ(p.Plan(v), v.Owners); len(moved) > 0 {
			t.Errorf("%s: 510 and 490 of 1000 slots: got %d moved, want 0", name, len(moved))
		}
		v := v
		v.Owners = slices.Clone(v.Owners)
		v.Owners[0] = 0
		if moved := differ(p.Plan(v), v.Owners); len(moved) == 0 {
			t.Errorf("%s: 511 and 489 of 1000 slots: got none moved, want some", name)
		}
	}
}
