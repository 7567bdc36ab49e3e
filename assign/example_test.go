package assign_test

import (
	"fmt"

	"github.com/coordd/coordd/assign"
)

// Three servers share twelve slots. One of them goes, and only its slots move.
func ExampleSticky() {
	p := assign.Sticky(assign.LeastLoaded{})
	v := assign.View{
		Group:   "reports",
		Members: []assign.Member{{ID: "1", Name: "app-1", Eligible: true}, {ID: "2", Name: "app-2", Eligible: true}, {ID: "3", Name: "app-3", Eligible: true}},
		Owners:  []int{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
	}
	v.Owners = p.Plan(v)
	fmt.Println(v.Owners)

	v.Members[1].Eligible = false
	fmt.Println(p.Plan(v))
	// Output:
	// [0 1 2 0 1 2 0 1 2 0 1 2]
	// [0 0 2 0 2 2 0 0 2 0 2 2]
}

// nearby prefers servers of the zone that a group is named for.
type nearby struct{ zones map[string]string }

func (n nearby) Place(_ assign.Slot, open []*assign.Candidate) int {
	for i, c := range open {
		if n.zones[c.Name] == "eu" {
			return i
		}
	}
	return 0
}

// A placer of one's own chooses among those that have room; balance is not its concern.
func ExamplePlacer() {
	p := assign.Sticky(nearby{zones: map[string]string{"app-2": "eu"}})
	v := assign.View{
		Group:   "reports",
		Members: []assign.Member{{ID: "1", Name: "app-1", Eligible: true}, {ID: "2", Name: "app-2", Eligible: true}},
		Owners:  []int{-1, -1, -1, -1},
	}
	fmt.Println(p.Plan(v))
	// Output: [1 1 0 0]
}
