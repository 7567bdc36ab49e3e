// Package assigntest tests planners, also those of your own:
//
//	func TestMyPlanner(t *testing.T) {
//		if err := assigntest.TestPlanner(myPlanner{}); err != nil {
//			t.Fatal(err)
//		}
//	}
//
// A placer of your own is tested as part of assign.Sticky(myPlacer{}). The views are drawn from
// fixed seeds, so a failure comes again. It takes about a second.
package assigntest

import (
	"errors"
	"fmt"

	"github.com/coordd/coordd/assign"
)

// rules are what a planner must keep.
var rules = []struct {
	name string
	kept func(p assign.Planner) error
}{
	{"each slot has an owner that lives and is eligible, whatever the view", total},
	{"the same view gives the same plan, and is not written to", deterministic},
	{"when nothing has changed, nothing moves", idle},
	{"shares are even", even},
	{"a member that comes or goes moves no more than it must", frugal},
	{"a restart under the same name moves nothing", restart},
	{"plans come to rest, however members and loads change", restful},
}

// TestPlanner returns an error that tells of each rule that a planner breaks.
func TestPlanner(p assign.Planner) error {
	var errs []error
	for _, r := range rules {
		if err := r.kept(p); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, err))
		}
	}
	return errors.Join(errs...)
}

// CheckPlan returns an error where a plan for a view leaves a slot to somebody who may not have
// it, or to nobody though somebody may.
func CheckPlan(v assign.View, owners []int) error {
	if len(owners) != len(v.Owners) {
		return fmt.Errorf("slots in the plan: got %d, want %d", len(owners), len(v.Owners))
	}
	eligible, names := 0, map[string]bool{}
	for _, m := range v.Members {
		if m.Eligible {
			eligible++
			names[m.Name] = true
		}
	}
	for slot, owner := range owners {
		switch {
		case owner == -1 && eligible > 0 && !waits(v, slot, names):
			return fmt.Errorf("slot %d: got nobody, want one of the %d eligible members", slot, eligible)
		case owner == -1:
		case owner < 0 || owner >= len(v.Members):
			return fmt.Errorf("slot %d: got member %d, want one of the view's %d", slot, owner, len(v.Members))
		case !v.Members[owner].Eligible:
			return fmt.Errorf("slot %d: got member %q, which is not eligible", slot, v.Members[owner].ID)
		case waits(v, slot, names):
			return fmt.Errorf("slot %d: got member %q, want nobody: it is reserved for %q", slot, v.Members[owner].ID, v.Reserved[slot])
		}
	}
	return nil
}

// waits says whether a slot is kept for a name that is not there.
func waits(v assign.View, slot int, names map[string]bool) bool {
	if owner := v.Owners[slot]; owner >= 0 && owner < len(v.Members) && v.Members[owner].Eligible {
		return false
	}
	return slot < len(v.Reserved) && v.Reserved[slot] != "" && !names[v.Reserved[slot]]
}
