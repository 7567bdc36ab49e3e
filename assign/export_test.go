package assign

import "github.com/coordd/coordd/internal/dialect"

// HandOverText is how SQLite reads the beginning of the statement that hands slots over. Its arguments are four, the
// numbers of the slots, and those with their epochs.
var HandOverText = dialect.SQLite.Text(stmtHandOver)
