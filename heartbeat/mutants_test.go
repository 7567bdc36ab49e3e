package heartbeat

import (
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

// mutant is a deliberate bug: one place in one file, changed.
type mutant struct {
	name, file string
	seed       int // by which it is known to be caught
	old, new   string
}

// mutants are mistakes that somebody could make. A change that moves one of these places must
// move its mutant with it.
var mutants = []mutant{
	{"the right is counted from the reply", "beat.go", 373,
		`s.sent, s.acked, s.validUntil, s.failing = sent, now, sent+right(s.cfg.TTL), false`,
		`s.sent, s.acked, s.validUntil, s.failing = sent, now, now+right(s.cfg.TTL), false`},
	{"one look is enough to declare death", "observer.go", 2,
		`if received-s.since >= window(p.ttl) {`,
		`if received-s.since >= 0 {`},
	{"death is declared whatever seq is", "look.go", 133,
		`where member_id = ? and seq = ? and state in`,
		`where member_id = ? and seq >= ? and state in`},
	{"a beat revives the dead", "beat.go", 1,
		"load_json = ?\n\t\twhere member_id = ? and state in ('alive', 'draining')\n",
		"load_json = ?, state = 'alive'\n\t\twhere member_id = ?\n"},
	{"a dead row takes beats", "beat.go", 4,
		"load_json = ?\n\t\twhere member_id = ? and state in ('alive', 'draining')\n",
		"load_json = ?\n\t\twhere member_id = ?\n"},
	{"the observation goes on after a gap", "observer.go", 16,
		`s.seq != p.seq || idle > p.ttl/2 {`,
		`s.seq != p.seq || idle < 0 {`},
	{"only looks tell of an outage", "look.go", 1,
		`stalled, failed = max(s.stalled, now-s.acked), s.failed`,
		`stalled, failed = 0, false`},
	{"a session resumes whatever its row says", "beat.go", 4,
		`case changed == 0:`,
		`case changed < 0:`},
	{"the window is shorter than the right", "config.go", 10,
		`return ttl + ttl*driftPercent/100 + margin(ttl) }`,
		`return right(ttl) * 9 / 10 }`},
	{"the watch is dated back", "observer.go", 1,
		`s = sighting{pulse: p, since: received}`,
		`s = sighting{pulse: p, since: sent - window(p.ttl)/4}`},
	{"the left can die", "look.go", 249,
		"where member_id = ? and seq = ? and state in ('alive', 'draining', 'condemned')`",
		"where member_id = ? and seq = ? and state <> 'dead'`"},
}

// The simulation is worth what it finds: each of these bugs, within the seeds that TestSim runs.
func TestTheSimulationCatchesMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dbtest.CatchMutant(t, m.seed, 2000, m.file, m.old, m.new)
		})
	}
}
