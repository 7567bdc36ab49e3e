package rights

import (
	"flag"
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run this one seed of TestSim; 0 means all")
	simSeeds = flag.Int("seeds", 200, "how many seeds TestSim runs, a tenth of that under the race detector")
)

// Whatever goes wrong, no two clients count on one right at one instant. Each seed is a world of
// some daemons whose sessions are suspended, lost, drained and forgotten, and that freeze, crash,
// leave and come back, on a database at its worst; of clients with clocks of their own, whose
// requests and answers are late or lost; and then a quiet time in which everybody must get what he
// asks for, and nothing may be left (sim_world_test.go, sim_client_test.go).
func TestSim(t *testing.T) {
	dbtest.Simulate(t, *simSeed, dbtest.Runs(*simSeeds), wanted, func(t *testing.T, seed uint64) (*dbtest.Sim, map[string]int) {
		w := newWorld(t, seed)
		w.run()
		return w.sim, w.seen
	})
}

// What all seeds together must have seen.
const (
	sawGrant     = "granted"
	sawTurn      = "granted after a wait, and not to be counted on yet"
	sawRenewal   = "renewed"
	sawNear      = "granted within 300 ms after another had counted on it"
	sawZombie    = "executed after its client had given it up"
	sawUnheard   = "answered, and not heard"
	sawQueued    = "kept a place"
	sawElsewhere = "held elsewhere"
	sawNoSession = "refused by a daemon without a session"
	sawTied      = "ended with its connection"
	sawGivenUp   = "given up"
	sawSilent    = "said nothing more"
	sawLost      = "lost"
	sawExpired   = "lost, by its own clock"
	sawRequested = "was asked to give it up"
	sawCrash     = "a daemon crashed"
	sawLeave     = "a daemon left"
	sawForget    = "a member was forgotten"
	sawDrain     = "a member drained"
	sawFailover  = "the database failed over"
)

var wanted = []string{
	sawGrant, sawTurn, sawRenewal, sawNear, sawZombie, sawUnheard, sawQueued, sawElsewhere, sawNoSession, sawTied, sawGivenUp,
	sawSilent, sawLost, sawExpired, sawRequested, sawCrash, sawLeave, sawForget, sawDrain, sawFailover,
}
