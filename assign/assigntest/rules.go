package assigntest

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"

	"github.com/coordd/coordd/assign"
)

// total plans views of every odd kind.
func total(p assign.Planner) error {
	var errs []error
	for _, v := range oddViews() {
		errs = append(errs, planned(p, v))
	}
	return errors.Join(errs...)
}

// planned makes one plan and checks it. A panic is an error.
func planned(p assign.Planner, v assign.View) (err error) {
	what := fmt.Sprintf("group %q", v.Group)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: it panics: %v", what, r)
		}
	}()
	if err := CheckPlan(v, p.Plan(v)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// oddViews are views that hurried planners trip over. Their groups are named for what is odd.
func oddViews() []assign.View {
	nan, inf := math.NaN(), math.Inf(1)
	member := func(id string, weight float64) assign.Member {
		return assign.Member{ID: id, Name: "app-" + id, Weight: weight, Eligible: true}
	}
	gone := member("c", 1)
	gone.Eligible = false
	three := []assign.Member{member("a", 1), member("b", 1), gone}
	none := func(n int) []int { return slices.Repeat([]int{-1}, n) }
	return []assign.View{
		{Group: "no slots, no members"},
		{Group: "no slots", Members: three},
		{Group: "no members", Owners: none(5)},
		{Group: "owners of no members", Owners: []int{0, 1, 2}},
		{Group: "nobody eligible", Members: []assign.Member{gone}, Owners: []int{0, -1, 0}},
		{Group: "one member", Members: three[:1], Owners: none(7), Load: []float64{3, 0, 0, 0, 1, 1, 1}},
		{Group: "more members than slots", Members: three, Owners: none(1), Load: []float64{1}},
		{Group: "an owner that is not eligible", Members: three, Owners: []int{2, 2, 2, 0, 1, 1}, Load: []float64{1, 1, 1, 1, 1, 1}},
		{Group: "owners that are not there", Members: three, Owners: []int{3, 99, -7, math.MaxInt, math.MinInt}},
		{Group: "odd loads", Members: three, Owners: none(6), Load: []float64{nan, inf, -inf, -1, math.MaxFloat64, math.SmallestNonzeroFloat64}},
		{Group: "huge loads", Members: three, Owners: none(3), Load: []float64{math.MaxFloat64, math.MaxFloat64, math.MaxFloat64}},
		{Group: "too few loads", Members: three, Owners: none(4), Load: []float64{1}},
		{Group: "too many loads", Members: three, Owners: none(1), Load: []float64{1, 2, 3}},
		{Group: "one huge slot", Members: three, Owners: []int{0, 0, 0, 0}, Load: []float64{1e6, 1, 1, 1}},
		{Group: "odd weights", Members: []assign.Member{member("a", nan), member("b", inf), member("c", -1), member("d", 0), member("e", 1e-300)}, Owners: none(50), Load: slices.Repeat([]float64{1}, 50)},
		{Group: "odd CPUs", Members: []assign.Member{{ID: "a", CPU: nan, Eligible: true}, {ID: "b", CPU: inf, Eligible: true}, {ID: "c", CPU: -1, Eligible: true}}, Owners: []int{0, 0, 1, 1, 2, 2}, Load: []float64{1, 1, 1, 1, 1, 1}},
		{Group: "one name twice", Members: []assign.Member{{ID: "a", Name: "x", Eligible: true}, {ID: "b", Name: "x", Eligible: true}}, Owners: none(4), Reserved: []string{"x", "x", "", ""}},
		{Group: "reserved for nobody", Members: three, Owners: none(3), Reserved: []string{"app-z", "", "app-a"}},
		{Group: "reserved for one that is not eligible", Members: three, Owners: none(2), Reserved: []string{"app-c", ""}},
		{Group: "all reserved", Members: three, Owners: none(2), Reserved: []string{"y", "z"}},
	}
}

// deterministic plans one view several times, also side by side.
func deterministic(p assign.Planner) error {
	g := newGroup(p, 1, 512, 10)
	g.addJobs(5000)
	if _, err := g.settle(); err != nil {
		return err
	}
	g.leave(3, false)
	g.join("", 2)
	v := g.view()
	want := p.Plan(v)
	if !reflect.DeepEqual(v, g.view()) {
		return errors.New("the view has changed")
	}
	plans := make([][]int, 4)
	var wg sync.WaitGroup
	for i := range plans {
		wg.Go(func() { plans[i] = p.Plan(v) })
	}
	wg.Wait()
	for _, got := range plans {
		if !slices.Equal(got, want) {
			return errors.New("two plans of one view differ")
		}
	}
	if !reflect.DeepEqual(v, g.view()) {
		return errors.New("the view has changed")
	}
	return nil
}

// idle plans again what has settled. That settle ends says as much; this says that one plan is
// enough to see it.
func idle(p assign.Planner) error {
	for _, jobs := range []int{0, 10, 5000} {
		g := newGroup(p, 2, 512, 7)
		g.addJobs(jobs)
		if _, err := g.settle(); err != nil {
			return err
		}
		if changed, err := g.plan(); err != nil || len(changed) > 0 {
			return errors.Join(err, fmt.Errorf("%s: got %d slots moved, want 0", g, len(changed)))
		}
	}
	return nil
}

// even looks at the shares after jobs have come, with and without weights.
func even(p assign.Planner) error {
	for _, weights := range [][]float64{{1}, {1, 1, 1}, {1, 2, 4}, slices.Repeat([]float64{1}, 12)} {
		g := newGroup(p, 3, 40*len(weights)*4, 0)
		for _, w := range weights {
			g.join("", w)
		}
		for _, jobs := range []int{0, 1000, 100_000} {
			g.addJobs(jobs)
			if _, err := g.settle(); err != nil {
				return err
			}
			if err := g.balanced(); err != nil {
				return err
			}
		}
	}
	return nil
}

// balanced says who has more than 2 % above its share, and a slot.
func (g *group) balanced() error {
	quota, load := g.quotas()
	for _, m := range g.members {
		if most := 1.02*quota[m.ID] + g.largest(); load[m.ID] > most {
			return fmt.Errorf("%s: load of member %s: got %g, want %g at most, as its share is %g and the largest slot has %g", g, m.ID, load[m.ID], most, quota[m.ID], g.largest())
		}
	}
	return nil
}

// frugal compares what moves with what members lack.
func frugal(p assign.Planner) error {
	for _, members := range []int{1, 3, 10} {
		g := newGroup(p, 4, 40*(members+1)*2, members)
		g.addJobs(20_000)
		if _, err := g.settle(); err != nil {
			return err
		}
		for range 5 {
			g.join("", 1)
			if err := g.settleFrugally(); err != nil {
				return fmt.Errorf("one has come: %w", err)
			}
			g.leave(g.rand.IntN(len(g.members)), false)
			if err := g.settleFrugally(); err != nil {
				return fmt.Errorf("one has gone: %w", err)
			}
		}
	}
	return nil
}

// settleFrugally fails where more than a twentieth, and two slots, moves beyond what members lack.
func (g *group) settleFrugally() error {
	lack := g.lack()
	moved, err := g.settle()
	if err != nil {
		return err
	}
	if most := 1.05*lack + 2*g.largest(); moved > most {
		return fmt.Errorf("%s: load moved: got %g, want %g at most, as members lacked %g", g, moved, most, lack)
	}
	return nil
}

// restart restarts one member after the other, then two at once.
func restart(p assign.Planner) error {
	g := newGroup(p, 5, 512, 6)
	g.addJobs(20_000)
	if _, err := g.settle(); err != nil {
		return err
	}
	names := func() (names []string) {
		byID := map[string]string{}
		for _, m := range g.members {
			byID[m.ID] = m.Name
		}
		for _, id := range g.owners {
			names = append(names, byID[id])
		}
		return names
	}
	want := names()
	for _, n := range []int{1, 1, 1, 1, 1, 1, 2} { // who has come back stands last
		var away []assign.Member
		for range n {
			away = append(away, g.leave(0, true))
			if moved, err := g.plan(); err != nil || len(moved) > 0 {
				return errors.Join(err, fmt.Errorf("%d away: got %d slots moved, want 0", len(away), len(moved)))
			}
		}
		for _, m := range away {
			g.join(m.Name, m.Weight)
		}
		if _, err := g.settle(); err != nil {
			return err
		}
		if !slices.Equal(names(), want) {
			return fmt.Errorf("%d back: slots have not all gone back to the names that they were reserved for", n)
		}
	}
	return nil
}

// restful lets things happen by chance, thousands of times. Huge slots are to be planned too, but
// as nothing fits where they are, a slot may come back to where it was, and more may move.
func restful(p assign.Planner) error {
	for _, size := range []struct {
		slots, members, jobs int
		huge                 bool
	}{{512, 12, 20_000, false}, {512, 12, 300, false}, {32, 20, 500, false}, {512, 12, 20_000, true}, {32, 20, 500, true}} {
		g := newGroup(p, 6, size.slots, 3)
		g.huge = size.huge
		g.addJobs(size.jobs)
		for round := range 1000 {
			what := g.happen(size.members)
			settle := g.settleFrugally
			if g.huge {
				settle = func() error { _, err := g.settle(); return err }
			}
			if err := settle(); err != nil {
				return fmt.Errorf("event %d: %s: %w", round, what, err)
			}
		}
	}
	return nil
}

// happen changes the members or the loads by chance.
func (g *group) happen(mostMembers int) (what string) {
	switch n := len(g.members); {
	case g.rand.IntN(4) == 0 && n < mostMembers:
		g.join("", []float64{1, 1, 1, 0.5, 3}[g.rand.IntN(5)])
		return "one has come"
	case g.rand.IntN(3) == 0 && n > 1:
		g.leave(g.rand.IntN(n), false)
		return "one has gone"
	case g.rand.IntN(10) == 0:
		g.load[g.rand.IntN(len(g.load))] *= 20
		return "a slot has become huge"
	}
	for slot := range g.load {
		if g.rand.IntN(10) == 0 && g.huge {
			g.load[slot] = math.Round(g.load[slot] * (0.5 + g.rand.Float64()))
		}
	}
	g.addJobs(len(g.load) / 10)
	return "loads have drifted"
}
