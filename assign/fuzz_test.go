package assign_test

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/assign/assigntest"
)

// oddNumbers are what a byte of the fuzzer may stand for.
var oddNumbers = []float64{0, math.NaN(), math.Inf(1), math.Inf(-1), -1, math.SmallestNonzeroFloat64, math.MaxFloat64, 1e-12, 1e15, 0.5, 0.05}

func number(b byte) float64 {
	if int(b) < len(oddNumbers) {
		return oddNumbers[b]
	}
	return float64(b)
}

// viewOf reads a view out of bytes: three for each member, and three for each slot.
func viewOf(members, slots []byte) assign.View {
	v := assign.View{Group: "fuzz"}
	for i := 0; i+3 <= len(members) && i < 3*40; i += 3 {
		v.Members = append(v.Members, assign.Member{
			ID: fmt.Sprintf("%03d", i), Name: fmt.Sprint("app-", members[i]%8), Weight: number(members[i+1]), CPU: number(members[i+2]) / 100, Eligible: members[i] < 224,
		})
	}
	for i := 0; i+3 <= len(slots) && i < 3*200; i += 3 {
		v.Owners = append(v.Owners, int(slots[i])-2)
		v.Load = append(v.Load, number(slots[i+1]))
		name := ""
		if r := slots[i+2]; r > 200 {
			name = fmt.Sprint("app-", r%16)
		}
		v.Reserved = append(v.Reserved, name)
	}
	return v
}

// FuzzPlan checks of any view and each strategy that the plan is a right one and always the
// same, that the view stays as it was, and that planning again comes to rest.
func FuzzPlan(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte("\x01\x01\x00"), []byte("\x00\x14\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x14\x00\x02\x28\x00\x03\x14\x00"), []byte("\x00\x14\x00\x02\x15\x00\x02\x16\x00\x02\xff\x00\x00\x14\xff\x04\x00\x00"))
	f.Add([]byte("\xff\x14\x00\xfe\x14\x32"), []byte("\x02\x14\xd0\x03\x14\xd1"))
	all := planners(f)
	f.Fuzz(func(t *testing.T, members, slots []byte) {
		v := viewOf(members, slots)
		copied := viewOf(members, slots)
		for name, p := range all {
			owners := p.Plan(v)
			if err := assigntest.CheckPlan(v, owners); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if again := p.Plan(v); !slices.Equal(again, owners) {
				t.Fatalf("%s: two plans of one view differ", name)
			}
			if fmt.Sprint(v) != fmt.Sprint(copied) { // as NaN is not equal to itself
				t.Fatalf("%s: the view has changed", name)
			}
			rest(t, name, p, v, owners)
		}
	})
}

func rest(t *testing.T, name string, p assign.Planner, v assign.View, owners []int) {
	for round := 0; !reflect.DeepEqual(v.Owners, owners); round++ {
		if round == 500 {
			t.Fatalf("%s: plan %d, with nothing changed meanwhile, still moves slots", name, round)
		}
		v.Owners = owners
		owners = p.Plan(v)
	}
}
