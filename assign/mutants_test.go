package assign_test

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
	{"a hand-over leaves the epoch", "slots.go", 2,
		"owner = target, target = null, epoch = epoch + 1",
		"owner = target, target = null, epoch = epoch + 0"},
	{"a slot is handed over before its functions have returned", "keeper.go", 3,
		`if h.phase == stopping && h.hasReturned() {`,
		`if h.phase == stopping {`},
	{"a slot runs again whose functions have not returned", "keeper.go", 6,
		`if h.phase == stopped && !h.stale`,
		`if h.phase >= stopping && h.phase < sent && !h.stale`},
	{"a slot is orphaned without the death of its owner", "decide.go", 6,
		`return s != "" && !s.Ended()`,
		`return s == heartbeat.Alive`},
	{"a plan is written in whatever history", "slots.go", 159,
		"plan_version = plan_version + 1 where name = ? and ` + journal.Trusted",
		"plan_version = plan_version + 1 where name = ? and ? <> 0`"},
	{"what is read counts for a version of the plan that was not", "slots.go", 1,
		`k.anew, k.seen = false, plan[0].version`,
		`k.anew, k.seen = false, plan[0].version+1`},
	{"what is planned bears an old version", "leader.go", 2,
		"stmtAim = `update coordd_slots set target = ?, version = ?",
		"stmtAim = `update coordd_slots set target = ?, version = ? - 1"},
	{"a slot goes on in an epoch in which it was sent away", "handover.go", 62,
		"case h.phase == sent:\n\t\t\tback = append(back, h)",
		"case h.phase == sent:\n\t\t\th.phase = stopped"},
	{"a lapse is forgotten", "keeper.go", 5,
		"func (k *keeper) lapse() {\n\tk.anew = true",
		"func (k *keeper) lapse() {"},
	{"who gives back stays among those who serve", "handover.go", 1,
		`tx.Exec(ctx, stmtUnserve, k.group, k.session.ID())`,
		`tx.Exec(ctx, stmtUnserve, "", k.session.ID())`},
	{"who gives back is still the target of others", "handover.go", 15,
		`tx.Exec(ctx, stmtDecline, version, k.group, k.session.ID())`,
		`tx.Exec(ctx, stmtDecline, version, "", k.session.ID())`},
	{"slots are given to who has ceased to serve", "leader.go", 138,
		`return to != "" && !slices.Contains(serving, to)`,
		`return to != "" && len(serving) == 0`},
	{"a guard asks for the slot only", "job.go", 69,
		"where grp = ? and slot = ? and owner = ? and epoch = ? {share}",
		"where grp = ? and slot = ? and owner <> ? and epoch >= ? {share}"},
	{"more is on its way than may", "decide.go", 9,
		`case o.flying < room:`,
		`case o.flying <= room:`},
	{"a slot is released with its last change", "changes.go", 207,
		`len(p.have) == 0 && p.open == 0`,
		`len(p.have) == 0`},
	{"what was read of a slot before it arrived is not read again though it has changed", "news.go", 664,
		"if k.ahead[slot] != nil {",
		"if k.ahead[slot] == nil {"},
	{"what comes from the outbox is never told", "leader.go", 70,
		`if time.Since(t.drained) < drainRest {`,
		`if !t.drained.IsZero() || t.k != nil {`},
}

// rare are those which only tests of their own catch: what they need comes together too seldom.
var rare = []struct{ name, test, file, old, new string }{
	{"a deposed leader writes its plan", "TestADeposedLeaderPlansNothing", "leader.go",
		`if err := t.term.Guard(ctx, tx); err != nil {`,
		`if err := t.term.Guard(ctx, tx); err != nil && t == nil {`},
	{"a slot is taken up after the session's deadline", "TestNothingIsTakenUpAfterTheDeadline", "../heartbeat/hold.go",
		"case s.now() >= s.validUntil:",
		"case s.now() >= s.validUntil+s.cfg.TTL:"},
	{"a slot that could not be taken up is forgotten", "TestWhatCouldNotBeTakenUpIsNotForgotten", "keeper.go",
		"if err != nil {\n\t\tk.anew = true\n\t\treturn nil",
		"if err != nil {\n\t\treturn nil"},
}

// The simulation is worth what it finds: each of these bugs, within the seeds that TestSim runs;
// and so are the tests of what is rare.
func TestTheSimulationCatchesMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dbtest.CatchMutant(t, m.seed, 2000, m.file, m.old, m.new)
		})
	}
	for _, m := range rare {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dbtest.CatchMutantBy(t, m.test, m.file, m.old, m.new)
		})
	}
}
