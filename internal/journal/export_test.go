package journal

// What the tests look at beside what is exported.
const (
	Step      = step
	StmtFloor = stmtFloor
)

// Accepted is the fingerprint of the accepted history.
func (h History) Accepted() string { return h.accepted }
