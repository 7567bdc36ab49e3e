package lease

import (
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dialect"
)

// What the simulation, which is outside of this package as election is above it, sees of it.

// SupersedeText is how SQLite reads the statement that settles.
var SupersedeText = dialect.SQLite.Text(stmtSupersede)

// SweepEvery is how many beats pass between two sweeps.
const SweepEvery = sweepEvery

// Knows says whether a session knows of a grant: it has been asked for, and was not given back.
func Knows(s *heartbeat.Session, grantID string) bool {
	k := of(s)
	k.mu.Lock()
	defer k.mu.Unlock()
	_, known := k.grants[grantID]
	return known
}

// Known is how many grants and places a session knows of.
func Known(s *heartbeat.Session) (grants, places int) {
	k := of(s)
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.grants), len(k.places)
}
