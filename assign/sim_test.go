package assign_test

import (
	"flag"
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run this one seed of TestSim; 0 means all")
	simSeeds = flag.Int("seeds", 2000, "how many seeds TestSim runs, a tenth of that under the race detector")
)

// Whatever goes wrong, the promises hold. Each seed is a world of some machines whose processes
// serve a group, whose functions end at once, late, or far too late, that crash, freeze, leave,
// restart and are drained, on a database and a network at their worst, which may fail over and
// forget, while jobs come and go and the group's options change; and then a quiet time in which
// every job must be looked after by just one who may, and at last nothing may move any more
// (sim_world_test.go, sim_member_test.go). The promises are checked at each commit, at each
// function that begins, and all the time (sim_check_test.go).
func TestSim(t *testing.T) {
	dbtest.Simulate(t, *simSeed, dbtest.Runs(*simSeeds), wanted(), func(t *testing.T, seed uint64) (*dbtest.Sim, map[string]int) {
		w := newWorld(t, seed)
		w.run()
		return w.sim, w.ledger.seen
	})
}

// What all seeds together must have seen.
const (
	sawMove      = "moved"
	sawGiveBack  = "gave back"
	sawKept      = "took back what was to move"
	sawTakeover  = "took over from the dead"
	sawBack      = "had its slots back after a restart"
	sawResumed   = "went on in the same epoch"
	sawLate      = "stopped late"
	sawFailed    = "failed, and was run again"
	sawChanged   = "was changed, and began anew"
	sawWrite     = "wrote under a guard"
	sawFence     = "was fenced off"
	sawTerm      = "was led by another"
	sawAgain     = "served again in one session"
	sawBroke     = "left the loop"
	sawOptions   = "changed the options"
	sawJobs      = "changed jobs"
	sawJobsTx    = "changed jobs in a transaction of a user's"
	sawCrash     = "crashed"
	sawLeave     = "left"
	sawRestart   = "restarted"
	sawLoss      = "lost"
	sawDrain     = "drained"
	sawUndrain   = "undrained"
	sawCondemned = "condemned by an operator"
	sawDisobeyed = "condemned by the leader"
	sawFailover  = "failed over"
	sawHistory   = "trusted a new history"
	sawDrop      = "dropped"
)

func wanted() []string {
	all := []string{
		sawMove, sawGiveBack, sawTakeover, sawBack, sawResumed, sawLate, sawFailed, sawChanged, sawWrite, sawFence,
		sawTerm, sawAgain, sawBroke, sawOptions, sawJobs, sawJobsTx, sawCrash, sawLeave, sawRestart, sawLoss, sawDrain, sawUndrain,
		sawCondemned, sawDisobeyed, sawFailover, sawHistory, sawDrop,
	}
	if !dbtest.Racing() { // it is rare
		all = append(all, sawKept)
	}
	return all
}
