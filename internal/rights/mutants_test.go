package rights

import (
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

// mutants are mistakes that somebody could make, each one place in one file. A change that moves one
// of these places must move its mutant with it. The last two are a client's.
var mutants = []struct {
	name, file string
	seed       int // by which it is known to be caught
	old, new   string
}{
	{"a promise does not ask for what is left of the session", "take.go", 201,
		`left := min(ask.TTL, r.session.Stats().Remaining)`,
		`left := ask.TTL`},
	{"what was asked for is given back at once", "right.go", 5,
		`r.state == Ends && now >= r.promised`,
		`r.state == Ends`},
	{"it is given back with the session that was lost", "right.go", 90,
		`if life.Err() == nil && r.held != nil {`,
		`if r.held != nil {`},
	{"it is given back before its ttl has passed", "take.go", 3,
		`r.expires = max(r.expires, now+ask.TTL)`,
		`r.expires = max(r.expires, now+ask.TTL*3/4)`},
	{"a promise allows for no clock's rate, and a little more", "rights.go", 174,
		`left - left*2/100`,
		`left + left*5/100`},
	{"who renews what is not held takes it", "desk.go", 7,
		`if ask.Token != 0 {`,
		`if ask.Token < 0 {`},
	{"a client counts from the answer", "sim_client_test.go", 29,
		`deadline = max(deadline, again+renewed.Valid)`,
		`deadline = max(deadline, again*0+c.now()+renewed.Valid)`},
	{"a client goes on when it has given up", "sim_client_test.go", 1,
		`c.w.stops(c, ask.Kind)`,
		``},
}

// The simulation is worth what it finds: each of these, within the seeds that TestSim runs.
func TestTheSimulationCatchesMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dbtest.CatchMutant(t, m.seed, 500, m.file, m.old, m.new)
		})
	}
}
