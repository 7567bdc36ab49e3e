package assign

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd/heartbeat"
)

// A leader's decisions, step by step. Members are single letters; a slot is written as its
// owner and its target: "a" is a's, "ab" is on its way from a to b, "-" has never been anybody's,
// "." is nobody's any more.
func TestDecisions(t *testing.T) {
	type step struct {
		after   time.Duration // since the step before
		serving string        // who serves: "a b!" where b drains, "b?" where it is condemned
		gone    string        // of whom the database says that they ended: "a", "a~" where it restarts
		slots   string
		want    string // orders: "a=0 b=1,2" gives, "b<3" aims, "<3" clears, "!a" condemns; empty: none
	}
	for title, steps := range map[string][]step{
		"those that come first are gathered": {
			{0, "a", "", "- - - -", ""},
			{2 * time.Second, "a b", "", "- - - -", ""},
			{time.Second, "a b", "", "- - - -", "a=2 b=2"},
		},
		"one that comes later is gathered too": {
			{0, "a", "", "a a a a", ""},
			{0, "a b", "", "a a a a", ""},
			{3 * time.Second, "a b", "", "a a a a", "b<2"},
		},
		"who is the only one is not waited for": {
			{0, "a", "", "a a a a", ""},
			{0, "b", "a", "a a a a", "b=4"},
		},
		"who may own nothing is no reason to wait": {
			{0, "a! c", "", "a a c c", "c<2"},
			{0, "a! b", "c", "a a c c", "b=2 b<2"},
		},
		"the dead own nothing, at once": {
			{0, "a b", "", "a a b b", ""},
			{0, "a", "b", "a a b b", "a=2"},
		},
		"what is given back is given anew": {
			{0, "a b", "", "a b . .", "a=1 b=1"},
		},
		"a target that died is not waited for": {
			{0, "a", "b", "ab a", "<1"},
		},
		"a target that drains is not waited for": {
			{0, "a b! c", "", "ab c b", "c<1 <1"},
		},
		"what is on its way is left alone": {
			{0, "a b", "", "ab ab a a", ""},
		},
		"who drains owns nothing": {
			{0, "a! b", "", "a a b b", "b<2"},
		},
		"the condemned hand nothing over": {
			{0, "a? b", "", "a a b b", ""},
			{0, "a? b c", "", "a a b b c c", ""},
		},
		"a name that restarts keeps its slots for a while": {
			{0, "a b", "", "a a b b", ""},
			{0, "a", "b~", "a a b b", ""},
			{29 * time.Second, "a", "b~", "a a b b", ""},
			{time.Second, "a", "b~", "a a b b", "a=2"},
		},
		"who does not obey is condemned": {
			{0, "a! b", "", "ab b", ""},
			{59 * time.Second, "a! b", "", "ab b", ""},
			{time.Second, "a! b", "", "ab b", "!a"},
		},
	} {
		t.Run(title, func(t *testing.T) {
			m, now := newMemory(), time.Now()
			for i, st := range steps {
				now = now.Add(st.after)
				s := pictured(st.serving, st.gone, st.slots)
				got := summed(m.decide(s, Sticky(ConsistentHash{}), now))
				if want := sorted(strings.Fields(st.want)); !slices.Equal(got, want) {
					t.Fatalf("step %d: got %v, want %v", i+1, got, want)
				}
			}
		})
	}
}

// While nobody knows what slots weigh, who has none gets one and who drains is relieved; nothing else moves.
func TestWhatWasNotWeighedIsNotEvenedOut(t *testing.T) {
	s := pictured("a b c!", "", "a a a a a a a a b c .")
	weighed := newMemory().decide(s, Sticky(LeastLoaded{}), time.Now())
	s.loads = nil
	got := newMemory().decide(s, Sticky(LeastLoaded{}), time.Now())
	if n := len(weighed.aim["b"]); n < 2 {
		t.Fatalf("where it was weighed %d slots are to move to b, want those of c and of a", n)
	}
	moves := slices.Concat(slices.Collect(maps.Values(got.aim))...)
	given := slices.Concat(slices.Collect(maps.Values(got.own))...)
	if len(moves) != 1 || moves[0].slot != 9 || len(given) != 1 || given[0].slot != 10 {
		t.Errorf("got moves of %v, and %v given; want slot 9, whose owner drains, and slot 10, which has none", moves, given)
	}
}

// One reading is acted on once, however often a leader plans, until there have been others for a while or other
// members are there.
func TestAReadingIsActedOnOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unhurried{Placer: WeightedCPU{}, Weigher: WeightedCPU{}}
		v := View{Members: []Member{{ID: "a", Weight: 1, CPU: 0.9, Eligible: true}, {ID: "b", Weight: 1, CPU: 0.1, Eligible: true}},
			Owners: []int{0, 1, 0, 1}, Load: []float64{1, 1, 1, 1}}
		first := slices.Clone(u.Weights(v))
		v.Owners = []int{0, 1, 1, 1} // as that has it
		if got := u.Weights(v); !slices.Equal(got, first) {
			t.Errorf("a moment later: got weights %v, want %v again", got, first)
		}
		time.Sleep(replan)
		later := slices.Clone(u.Weights(v))
		if slices.Equal(later, first) {
			t.Errorf("after %v: got weights %v, want others", replan, later)
		}
		v.Members[1].Eligible = false
		if got := u.Weights(v); slices.Equal(got, later) {
			t.Errorf("of other members: got weights %v, want others", got)
		}
	})
}

func sorted(words []string) []string { slices.Sort(words); return words }

// pictured makes a state of its short form.
func pictured(serving, gone, slots string) state {
	s := state{group: Group{Name: "g", Options: Options{MoveCap: 100}.Defaults()}}
	states := map[string]heartbeat.State{}
	for _, word := range strings.Fields(serving) {
		sv := server{id: word[:1], name: word[:1], state: heartbeat.Alive, seen: 1}
		switch word[1:] {
		case "!":
			sv.state = heartbeat.Draining
		case "?":
			sv.state = heartbeat.Condemned
		}
		s.servers = append(s.servers, sv)
		states[sv.id] = sv.state
	}
	for _, word := range strings.Fields(gone) {
		states[word[:1]] = heartbeat.Dead
		if word[1:] == "~" {
			states[word[:1]] = heartbeat.Restarting
		}
	}
	words := strings.Fields(slots)
	s.group.Slots = len(words)
	for i, word := range words {
		r := slotRow{slot: i, epoch: 1, version: 1}
		switch {
		case word == "-":
			r.version = 0
		case word != ".":
			r.owner, r.ownerName, r.ownerState = word[:1], word[:1], states[word[:1]]
		}
		if len(word) > 1 {
			r.target, r.targetState = word[1:], states[word[1:]]
		}
		s.slots = append(s.slots, r)
		s.loads = append(s.loads, 1)
	}
	return s
}

// summed is the short form of orders: how many slots each is given, or aimed at.
func summed(o orders) (words []string) {
	for _, id := range slices.Sorted(maps.Keys(o.own)) {
		words = append(words, fmt.Sprintf("%s=%d", id, len(o.own[id])))
	}
	for _, id := range slices.Sorted(maps.Keys(o.aim)) {
		words = append(words, fmt.Sprintf("%s<%d", id, len(o.aim[id])))
	}
	for _, id := range o.condemn {
		words = append(words, "!"+id)
	}
	return sorted(words)
}

// No more is on its way at once than the cap allows, and all arrives in the end.
func TestTheMoveCapHolds(t *testing.T) {
	s := pictured("a b", "", strings.Repeat("a ", 200))
	s.group.MoveCap = 10
	m, now := newMemory(), time.Now()
	m.known["b"] = true
	for range 20 {
		o := m.decide(s, Sticky(ConsistentHash{}), now)
		if o.flying > 20 {
			t.Fatalf("got %d slots on their way, want 20 at most", o.flying)
		}
		if !o.any() {
			break
		}
		for _, p := range o.aim["b"] {
			s.slots[p.slot].owner, s.slots[p.slot].ownerName = "b", "b"
			s.slots[p.slot].epoch++
		}
	}
	moved := 0
	for _, r := range s.slots {
		if r.owner == "b" {
			moved++
		}
	}
	if moved < 98 || moved > 102 {
		t.Errorf("got %d slots moved, want about 100", moved)
	}
}
