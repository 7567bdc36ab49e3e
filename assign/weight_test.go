package assign_test

import (
	"testing"

	"github.com/coordd/coordd/assign"
)

func TestWeightsByLabel(t *testing.T) {
	for label, want := range map[string]float64{"1": 1, "2": 2, "0.5": 0.5, "1e3": 1000, "0.000001": 1e-6, "1000000": 1e6} {
		got, err := assign.WeightOf(map[string]string{assign.WeightLabel: label, "zone": "b"})
		if err != nil || got != want {
			t.Errorf("label %q: got %v, %v, want %v", label, got, err, want)
		}
	}
	for _, label := range []string{"", "0", "-1", "NaN", "Inf", "two", "1,5", "1e7", "1e-7", " 1"} {
		got, err := assign.WeightOf(map[string]string{assign.WeightLabel: label})
		if err == nil || got != 1 {
			t.Errorf("label %q: got %v, %v, want 1 and an error", label, got, err)
		}
	}
	if got, err := assign.WeightOf(nil); err != nil || got != 1 {
		t.Errorf("no label: got %v, %v, want 1", got, err)
	}
}
