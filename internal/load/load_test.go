package load

import (
	"math"
	"testing"
	"time"

	"github.com/coordd/coordd/heartbeat"
)

func TestAShareIsNeverNaN(t *testing.T) {
	values := []float64{math.NaN(), math.Inf(-1), -1, math.Copysign(0, -1), 0, math.SmallestNonzeroFloat64, 0.5, 1, math.MaxFloat64, math.Inf(1)}
	for _, part := range values {
		for _, whole := range values {
			if got := share(part, whole); !(got >= 0 && got <= 1) {
				t.Errorf("%v of %v: got %v, want 0 to 1", part, whole, got)
			}
		}
	}
}

// Whatever this machine is: busy, it says so, and its sizes are sane.
func TestThisMachineIsMeasured(t *testing.T) {
	s := New()
	var got heartbeat.Load
	for began := time.Now(); got.CPU == 0 && time.Since(began) < time.Minute; {
		for until := time.Now().Add(shortest); time.Now().Before(until); { // busy
		}
		got = s.Load()
	}
	t.Logf("got %+v, of %+v", got, s.groups)
	if !(got.CPU > 0 && got.CPU <= 1) || !(got.Memory > 0 && got.Memory < 1) || !(got.Average >= 0) {
		t.Fatalf("got %+v, want CPU and memory above 0 and up to 1", got)
	}
}
