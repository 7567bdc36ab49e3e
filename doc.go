// Package coordd keeps a set of servers in agreement through the SQL database that
// they already have: who is alive (package heartbeat), who leads (election), who
// holds a lock (lock), and which server looks after which job (assign). There is no
// consensus service beside the database.
//
// # The one idea
//
// A session is alive or dead, and that is one row. Everything else is a row that names
// its owner's session and counts only while that session is alive. So a process renews
// one row however much it holds, and death is one compare-and-set on one row, final
// for that incarnation of the process.
//
// # Where to start
//
// Open a [*sql.DB] as you always do, hand it to [Postgres], [MySQL] or [SQLite], bring
// the schema up with package migrations or the goose command, and call heartbeat.Join.
//
// # What it relies on
//
// Committed writes survive and reads go to the primary. No clock of the database and
// no wall clock decides anything: each process counts its own rights on its own
// monotonic clock, from before it asked, and watches others for longer than that. The
// rates of those clocks may differ by 1 %.
package coordd
