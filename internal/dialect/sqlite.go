package dialect

import (
	"errors"
	"strings"
	"time"
)

// SQLite is SQLite 3.42 or newer. It has one writer at a time, so its transactions
// are serializable whatever one asks for.
var SQLite = &Dialect{
	Name: "SQLite",
	Bounds: func(d time.Duration) map[string]string {
		return map[string]string{"busy_timeout": milliseconds(d * 3 / 4)}
	},
	Unreachable: "check that it is a SQLite file, or its directory exists, and that this user may write there",
	ReadOnly:    "check that this user may write the file and its directory",
	fragments: strings.NewReplacer(
		"{now}", "cast(unixepoch('subsec')*1000000 as integer)",
		"{history}", "'sqlite'", // a file has none
		"{share}", "", // there is one writer
		"{idle at most}", "?",
		"{or keep token}", "on conflict do nothing",
		"{or keep next_ticket}", "on conflict do nothing",
		"{or keep plan_version}", "on conflict do nothing",
		"{or keep slot}", "on conflict do nothing",
		"{or keep seen}", "on conflict do nothing",
	),
	class: sqliteClass,
}

// sqliteClass reads the result code. https://www.sqlite.org/rescode.html
func sqliteClass(err error) Class {
	var coded interface{ Code() int } // modernc.org/sqlite's Error, without linking it
	if !errors.As(err, &coded) {
		return Other
	}
	switch coded.Code() & 0xff { // the primary code of an extended one
	case 5, 6: // BUSY, LOCKED
		return Transient
	case 8:
		return ReadOnly
	case 9: // INTERRUPT
		return Slow
	case 10, 14, 26: // IOERR, CANTOPEN, NOTADB
		return Unreachable
	case 3, 23:
		return Forbidden
	case 1: // ERROR has no finer code for this
		if s := err.Error(); strings.Contains(s, "no such table") || strings.Contains(s, "no such column") {
			return NoTable
		}
	}
	return Other
}
