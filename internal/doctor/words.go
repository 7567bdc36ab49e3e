package doctor

import "github.com/coordd/coordd/internal/dialect"

// words is how one product is asked about itself: here alone SQL is the product's own. An empty
// statement says that the question makes no sense there.
type words struct {
	// version is the server's own; oldest is the oldest that will do, by its numbers, and proof a
	// statement that only one understands which is new enough.
	version, proof string
	oldest         []int
	oldestName     string

	cipher string // what encrypts this connection: a name and a value, which is empty if nothing does

	readOnly string // why nothing can be written, which is empty if it can, and what to do

	user string // who is asking, as grant takes it

	fingerprintFix string // what lets that user see the history's fingerprint

	// isolation is that of statements by themselves; levels says of each which will do.
	isolation, isolationFix string
	levels                  map[string]Verdict

	// lossy are the settings by which a crash loses commits that were acknowledged: 0 rows of
	// name, value and how to set it right.
	lossy string

	process string // what serves this connection: the same number for as long as it stays the same
	bounded string // whether the server ends a statement that takes too long
	listens bool   // it has NOTIFY

	// prepared is how many statements this connection has prepared.
	prepared string

	// room is how many connections the server has, and how many at the most.
	room string

	// oldTransaction is the oldest open one: its age in seconds, whose it is, and what ends it.
	// 0 rows: there is none that this user may see. unseen is how many there may be that it may not.
	oldTransaction, unseen, unseenFix, oldHarm string

	journal string // the mode of SQLite's
}

func wordsOf(product string) words {
	switch product {
	case dialect.Postgres.Name:
		return postgres
	case dialect.SQLite.Name:
		return sqlite
	case dialect.MySQL.Name:
		return mysql
	}
	return mariadb // Galera too
}
