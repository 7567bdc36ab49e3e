package heartbeat

import (
	"flag"
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run this one seed of TestSim; 0 means all")
	simSeeds = flag.Int("seeds", 2000, "how many seeds TestSim runs, a tenth of that under the race detector")
)

// Whatever goes wrong, the promises hold. Each seed is a world of some members that crash, leave
// and come back, on a database and a network at their worst, and then a quiet time in which
// everything must come right (sim_world_test.go); the promises are checked at each commit
// (sim_check_test.go).
func TestSim(t *testing.T) {
	wanted := []string{sawJoin, sawCrash, sawLeave, sawDeath, sawLoss, sawSuspension, sawResumption, sawOrder}
	dbtest.Simulate(t, *simSeed, dbtest.Runs(*simSeeds), wanted, func(t *testing.T, seed uint64) (*dbtest.Sim, map[string]int) {
		w := newWorld(t, seed)
		w.run()
		return w.sim, w.seen
	})
}
