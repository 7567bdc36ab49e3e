package assign_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/coordd/coordd/assign"
)

// settled is a view in which the plan is carried out: so many jobs on slots that members share.
func settled(p assign.Planner, slots, members, jobs int) assign.View {
	v := assign.View{Group: "bench", Owners: make([]int, slots), Load: make([]float64, slots)}
	for i := range v.Owners {
		v.Owners[i] = -1
	}
	for i := range members {
		v.Members = append(v.Members, assign.Member{ID: fmt.Sprintf("%04d", i), Name: fmt.Sprintf("app-%d", i), Weight: 1, CPU: 0.5, Eligible: true})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range jobs {
		v.Load[r.IntN(slots)]++
	}
	v.Owners = p.Plan(v)
	return v
}

// BenchmarkPlan makes one plan: of a group without owners, after a member has left, after one
// has come, and after nothing has changed.
func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct{ slots, members int }{{4096, 100}, {65536, 1000}} {
		for _, strategy := range assign.Strategies() {
			placer, err := assign.PlacerByName(strategy)
			if err != nil {
				b.Fatal(err)
			}
			p := assign.Sticky(placer)
			same := settled(p, size.slots, size.members, 1_000_000)
			left := same
			left.Members = append([]assign.Member(nil), same.Members...)
			left.Members[size.members/2].Eligible = false
			joined := same
			joined.Members = append(same.Members[:size.members:size.members], assign.Member{ID: "9999", Name: "new", Weight: 1, CPU: 0.5, Eligible: true})
			fresh := same
			fresh.Owners = make([]int, size.slots)
			for i := range fresh.Owners {
				fresh.Owners[i] = -1
			}
			for _, c := range []struct {
				name string
				v    assign.View
			}{{"leave", left}, {"join", joined}, {"same", same}, {"first", fresh}} {
				b.Run(fmt.Sprintf("%s/%dx%d/%s", strategy, size.slots, size.members, c.name), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						p.Plan(c.v)
					}
				})
			}
		}
	}
}

// BenchmarkOwners finds the owner of each of a million jobs: hashing its key, and looking up its
// slot's owner. Neither making the keys nor the plan is counted.
func BenchmarkOwners(b *testing.B) {
	keys := make([]string, 1_000_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("job-%d", i)
	}
	owners := make([]int, len(keys))
	for _, slots := range []int{4096, 4000} {
		plan := settled(assign.Sticky(assign.ConsistentHash{}), slots, 100, len(keys)).Owners
		b.Run(fmt.Sprintf("%d slots", slots), func(b *testing.B) {
			for b.Loop() {
				for i, key := range keys {
					owners[i] = plan[assign.SlotOf(key, slots)]
				}
			}
		})
	}
}
