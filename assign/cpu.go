package assign

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// WeightedCPU gives members whose CPU is busier than the others' a smaller share than their weight
// says, and those whose is idler a larger one: the mean CPU over their own, and between a quarter
// and four times. A difference of less than 0.05 counts for nothing.
//
// It goes there slowly, as what moves changes the CPUs too: in one plan by half of the way, and by a
// tenth at most of what a member should have by weight alone. The share that it has now is where the
// step begins, so nothing is remembered between plans. Make a plan only when there are new readings,
// or one is acted on twice: a group's leader asks every 30 s, and when members come or go. A member that
// owns nothing yet begins with its share by weight, and one whose CPU is not known keeps what it has.
// Where none is known, weights alone decide.
//
// It places slots as [LeastLoaded] does.
type WeightedCPU struct{}

// unhurried is a placer whose weights stand for a while, unless other members are there: a leader plans
// whenever anything has changed, and one reading would be acted on each time.
type unhurried struct {
	Placer
	Weigher
	of      string // whose weights they are
	since   time.Time
	weights []float64
}

// Weights implements Weigher.
func (u *unhurried) Weights(v View) []float64 {
	var of strings.Builder
	for _, m := range v.Members {
		fmt.Fprintln(&of, m.ID, m.Weight, m.Eligible)
	}
	if of.String() != u.of || time.Since(u.since) >= replan {
		u.of, u.since, u.weights = of.String(), time.Now(), u.Weigher.Weights(v)
	}
	return u.weights
}

// Place implements Placer.
func (WeightedCPU) Place(s Slot, open []*Candidate) int { return LeastLoaded{}.Place(s, open) }

const (
	cpuBand  = 0.05
	cpuFloor = 0.10 // added to each CPU, so that of two idle ones none counts as twice the other
	cpuMost  = 4.0  // times the share by weight, and at the least one over it
	cpuStep  = 0.10 // of the share by weight, in one plan
	cpuGain  = 0.50 // of the way, in one plan: readings lag behind, and with more it would swing
)

// Weights implements Weigher.
func (WeightedCPU) Weights(v View) []float64 {
	shares := sharesByWeight(v)
	mean, known := meanCPU(v, shares)
	if !known {
		return shares
	}
	next := sharesNow(v, shares)
	for i, m := range v.Members {
		switch {
		case next[i] == 0:
			next[i] = shares[i]
		case m.CPU > 0:
			step := cpuGain * (shares[i]*byCPU(m.CPU, mean) - next[i])
			next[i] += min(max(step, -cpuStep*shares[i]), cpuStep*shares[i])
		}
		next[i] = max(next[i], shares[i]/cpuMost)
	}
	return next
}

// byCPU is how many times its share by weight a member should have.
func byCPU(cpu, mean float64) float64 {
	off := min(cpu, 1) - mean
	off = math.Copysign(max(math.Abs(off)-cpuBand, 0), off)
	return min(max((mean+cpuFloor)/(mean+off+cpuFloor), 1/cpuMost), cpuMost)
}

// sharesByWeight are the parts of the whole that members should have by their weights.
func sharesByWeight(v View) []float64 {
	shares := make([]float64, len(v.Members))
	for i, m := range v.Members {
		if m.Eligible {
			shares[i] = weight(m.Weight)
		}
	}
	return normal(shares, 1)
}

// sharesNow are the parts of the whole that members have, of the load, or of the slots where none
// has any. What those should have that have nothing is left out of the whole.
func sharesNow(v View, should []float64) []float64 {
	loads, counts := make([]float64, len(v.Members)), make([]float64, len(v.Members))
	var load float64
	back := back(v)
	for slot := range v.Owners {
		if owner := v.kept(slot, back); owner >= 0 {
			loads[owner] += v.load(slot)
			counts[owner]++
			load += v.load(slot)
		}
	}
	now, whole := loads, 1.0
	if load == 0 {
		now = counts
	}
	for i := range now {
		if now[i] == 0 {
			whole -= should[i]
		}
	}
	return normal(now, whole)
}

// normal makes numbers that are not negative add up to a sum, unless all are 0.
func normal(numbers []float64, sum float64) []float64 {
	var all float64
	for _, n := range numbers {
		all += n
	}
	for i := range numbers {
		if all > 0 {
			numbers[i] *= sum / all
		}
	}
	return numbers
}

// meanCPU is the mean of those CPUs that are known, weighted as the members are.
func meanCPU(v View, shares []float64) (mean float64, known bool) {
	var weights float64
	for i, m := range v.Members {
		if m.Eligible && m.CPU > 0 {
			mean += shares[i] * min(m.CPU, 1)
			weights += shares[i]
		}
	}
	return mean / weights, weights > 0
}
