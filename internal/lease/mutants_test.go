package lease_test

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
//
// What cannot show here, as SQLite has one writer at a time, is a guard that takes no lock, or
// asks by exists in the statement that it guards: nothing comes between such a guard and its
// commit. TestOnlyAGuardThatLocksGuards shows both on the real databases.
var mutants = []mutant{
	{"a grant is asked for again under the same id", "grant.go", 1,
		`id := uuid.NewString()`,
		`id := uuid.NewSHA1(uuid.Nil, []byte(k.session.ID()+w.Name)).String()`},
	{"an unanswered grant is not superseded", "grant.go", 146,
		`k.DB.Exec(ctx, stmtSupersede, h.want.Name, st.token)`,
		`k.DB.Exec(ctx, stmtSupersede+" and 1 = 0", h.want.Name, st.token)`},
	{"a grant is handed out whatever has become of the session", "grant.go", 219,
		`case why != nil: // it was suspended`,
		`case why != nil && k == nil: // it was suspended`},
	{"what it displaces stays", "grant.go", 628,
		`if st.rows > 0 {`,
		`if st.rows < 0 {`},
	{"who shares a right has the token of another", "grant.go", 1,
		`k.hold(ctx, w, id, st.next())`,
		`k.hold(ctx, w, id, st.next()-int64(min(w.Limit, 1)))`},
	{"what the living hold is free", "lease.go", 2,
		`case "alive", "draining", "condemned":`,
		`case "draining", "condemned":`},
	{"what the condemned hold is free", "lease.go", 44,
		`case "alive", "draining", "condemned":`,
		`case "alive", "draining":`},
	{"a release names the lease only", "lease.go", 57,
		"since_us = {now} where name = ? and grant_id = ? and token = ?`",
		"since_us = {now} where name = ? and ? <> '' and ? > 0`"},
	{"a release begins the tokens anew", "lease.go", 1,
		`stmtRelease       = ` + "`update coordd_leases set holder",
		`stmtRelease       = ` + "`update coordd_leases set token = 0, holder"},
	{"a grant does not ask for the history", "lease.go", 128,
		"value < ?)\n\t\tand ` + journal.Trusted",
		"value < ?)\n\t\tand ? <> 0`\n\t_ = journal.Trusted"},
	{"tokens go on where the new history stands", "../journal/history.go", 25,
		`tx.Exec(ctx, stmtRaiseFloor, floor, floor)`,
		`tx.Exec(ctx, stmtRaiseFloor, 0, 0)`},
	{"the dead wait too", "lease.go", 27,
		"b.state in ` + queued + ` and w.id <> ?",
		"b.state <> '' and w.id <> ?"},
	{"a grant does not ask who waits", "lease.go", 113,
		"and ` + ahead + ` <= ?",
		"and ` + ahead + ` < 1000 + ?"},
	{"who could not have it is passed over", "queue.go", 41,
		`st.free(w) && st.sharing == 0 &&`,
		`st.free(w) &&`},
	{"a guard asks for the lease only", "guard.go", 2,
		"from coordd_leases where name = ? and grant_id = ? and token = ? {share}`",
		"from coordd_leases where name = ? and ? <> '' and token >= ? {share}`"},
	{"a right is taken up again that was released", "held.go", 7,
		"again := h.released\n\th.released = true",
		"again := h.released"},
}

// The simulation is worth what it finds: each of these bugs, within the seeds that TestSim runs.
func TestTheSimulationCatchesMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dbtest.CatchMutant(t, m.seed, 3000, m.file, m.old, m.new)
		})
	}
}
