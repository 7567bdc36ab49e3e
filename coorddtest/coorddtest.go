// Package coorddtest gives tests of your own a database in memory, with coordd's tables in it:
//
//	func TestAServerStaysAlive(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { // or without, and then an hour is an hour
//			db := coorddtest.SQLite(t)
//			s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: "app-7"})
//			if err != nil {
//				t.Fatal(err)
//			}
//			defer s.Leave(t.Context())
//			time.Sleep(time.Hour) // takes no time
//			if !s.Valid() {
//				t.Fatal(s.Err())
//			}
//		})
//	}
//
// It is real SQL on SQLite, and the same code that runs in production. Tests of what your own
// statements do on PostgreSQL or MySQL need those.
package coorddtest

import (
	"database/sql"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/memdb"
	"github.com/coordd/coordd/migrations"
)

// SQLite makes a database in memory that ends with the test. Each call makes another one. Any
// number of members may share it, and its pool has any number of connections; a table of your
// own may be made in it too.
//
// There is one transaction at a time. Whoever asks for anything outside of it meanwhile, be it
// to read, waits until it has ended, or until his own context has: SQLITE_BUSY does not occur.
// So do not wait, inside of a transaction, for what others do outside of it, and do not begin
// one by a statement of your own instead of [sql.DB.BeginTx]. PRAGMAs and temporary tables
// are common to all connections.
//
// Inside of a testing/synctest bubble time is virtual, also for those who wait for each other's
// transactions. Call it in the bubble and with the bubble's own t. What the database itself calls
// now is the machine's time even there: the age of a member stands still while virtual time
// goes on, and nothing grows old enough for heartbeat.Purge or events.Compact.
func SQLite(tb testing.TB) *coordd.DB {
	tb.Helper()
	script, err := migrations.Script("sqlite")
	if err != nil {
		tb.Fatal(err)
	}
	server, err := memdb.Open(script)
	if err != nil {
		tb.Fatal(err)
	}
	pool := sql.OpenDB(server.Connector())
	tb.Cleanup(func() {
		if err := pool.Close(); err != nil {
			tb.Errorf("coorddtest: close the pool: %v", err)
		}
		if err := server.Close(); err != nil {
			tb.Errorf("coorddtest: close the database: %v", err)
		}
	})
	return coordd.SQLite(pool)
}
