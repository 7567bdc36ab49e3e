package lease_test

import (
	"flag"
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run this one seed of TestSim; 0 means all")
	simSeeds = flag.Int("seeds", 3000, "how many seeds TestSim runs, a tenth of that under the race detector")
)

// Whatever goes wrong, the promises hold. Each seed is a world of some machines whose processes
// take rights, wait for them, write under them and lead, crash, freeze, leave and come back, on a
// database and a network at their worst, which may fail over and forget; and then a quiet time in
// which everybody must get what he waits for and nothing may be left (sim_world_test.go,
// sim_client_test.go). The promises are checked at each commit, at each grant that is handed out,
// and all the time (sim_check_test.go).
func TestSim(t *testing.T) {
	dbtest.Simulate(t, *simSeed, dbtest.Runs(*simSeeds), wanted, func(t *testing.T, seed uint64) (*dbtest.Sim, map[string]int) {
		w := newWorld(t, seed)
		w.run()
		return w.sim, w.ledger.seen
	})
}

// What all seeds together must have seen.
const (
	sawGrant     = "granted"
	sawShare     = "granted beside others"
	sawWait      = "waited"
	sawGiveUp    = "gave up waiting"
	sawBarge     = "overtook the first in line"
	sawSettled   = "settled: not granted, and never will be"
	sawAdoption  = "settled: granted, and adopted"
	sawWrite     = "wrote under a guard"
	sawFence     = "was fenced off"
	sawTakeover  = "took over from the dead"
	sawResumed   = "took a right up again"
	sawTerm      = "led on in the same term"
	sawRequest   = "obeyed a request"
	sawCrash     = "crashed"
	sawLeave     = "left"
	sawLoss      = "lost"
	sawDrain     = "drained"
	sawCondemned = "condemned"
	sawFailover  = "failed over"
	sawHistory   = "trusted a new history"
)

var wanted = []string{
	sawGrant, sawShare, sawWait, sawGiveUp, sawBarge, sawSettled, sawAdoption, sawWrite, sawFence, sawTakeover,
	sawResumed, sawTerm, sawRequest, sawCrash, sawLeave, sawLoss, sawDrain, sawCondemned, sawFailover, sawHistory,
}
