package assign

import (
	"fmt"
	"strconv"
)

// WeightLabel is the label by which a server says how large its share is to be: one that bears
// "2" gets twice what one without it gets.
const WeightLabel = "coordd/weight"

const leastWeight, mostWeight = 1e-6, 1e6

// WeightOf is the weight that a server's labels give it: 1 if they say nothing. With an error,
// as the label is not a number from a millionth to a million, it is 1 too.
func WeightOf(labels map[string]string) (float64, error) {
	label, ok := labels[WeightLabel]
	if !ok {
		return 1, nil
	}
	w, err := strconv.ParseFloat(label, 64)
	if err != nil || !(w >= leastWeight && w <= mostWeight) {
		return 1, fmt.Errorf("label %s=%q is not a number from %g to %g; to give a server nothing, drain it", WeightLabel, label, leastWeight, mostWeight)
	}
	return w, nil
}

// weight is w as a number that can be reckoned with.
func weight(w float64) float64 {
	if !(w > 0) { // which NaN is not either
		return 1
	}
	return min(max(w, leastWeight), mostWeight)
}
