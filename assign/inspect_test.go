package assign

import (
	"reflect"
	"testing"
	"time"
)

// seen is a planner that keeps what it is shown.
type seen struct{ v View }

func (s *seen) Plan(v View) []int {
	s.v = v
	return Sticky(nil).Plan(v)
}

// A preview is made of what the leader plans with, whoever restarts, drains or is condemned. The
// short forms are those of TestDecisions.
func TestAPreviewSeesWhatTheLeaderSees(t *testing.T) {
	for title, test := range map[string]struct {
		serving, gone, slots string
		grace                time.Duration
	}{
		"nothing happens":           {"a b", "", "a a b b", time.Second},
		"nobody has anything":       {"a b", "", "- . - .", time.Second},
		"one restarts":              {"a", "b~", "a a b b", time.Second},
		"one restarts in vain":      {"a", "b~", "a a b b", -1},
		"one is condemned":          {"a b?", "", "a a b b", time.Second},
		"one drains":                {"a b!", "", "a a b ba", time.Second},
		"one dies":                  {"a", "b", "a ab b ba", time.Second},
		"one is condemned early":    {"a b? c", "", "a bc cb ab", -1},
		"who gives to one restarts": {"a c", "b~", "a ba bc b", time.Second},
	} {
		t.Run(title, func(t *testing.T) {
			s := pictured(test.serving, test.gone, test.slots)
			s.group.RestartGrace = test.grace
			m, leader := newMemory(), new(seen)
			for _, sv := range s.servers {
				m.known[sv.id] = true
			}
			m.decide(s, leader, time.Now())
			got, err := picture{state: s}.view(nil, nil)
			if err != nil || !reflect.DeepEqual(got, leader.v) {
				t.Errorf("got %+v, %v\nwant what the leader sees: %+v", got, err, leader.v)
			}
		})
	}
}

// Whoever is to be gone keeps nothing for its name, and is given nothing.
func TestAPreviewWithoutSomebodySeesItDead(t *testing.T) {
	for title, test := range map[string]struct{ serving, gone, slots, then string }{
		"it lives":        {"a b", "", "a a b b", "a a . ."},
		"it is given to":  {"a b", "", "a ab b b", "a a . ."},
		"it is condemned": {"a b?", "", "a a b b", "a a . ."},
	} {
		t.Run(title, func(t *testing.T) {
			got, err := picture{state: pictured(test.serving, test.gone, test.slots)}.view([]string{"b"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			want, err := picture{state: pictured("a", "", test.then)}.view(nil, nil)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}
