// Package pglisten hears of changes in a PostgreSQL database as they are committed, by LISTEN
// on a connection of its own, instead of with the next look:
//
//	conn, err := pgx.ParseConfig(dsn) // straight to the server, not through a pooler
//	listener := pglisten.New(db, conn, pglisten.Config{})
//	db.Listener = listener
//	go listener.Run(ctx) // and wait for it
//
// It promises nothing but a shorter wait. Whoever listens also looks from time to time, so
// whatever becomes of it, a change is seen at most that much later.
//
// It notices when it is deaf. A pooler in transaction mode (PgBouncer) takes LISTEN and
// delivers nothing, and the connection may end at another server than the pool's; so each
// new connection has to hear a notification that was sent through the pool before it counts.
// A path that was dropped without a word shows at the next ping that is not answered. In
// both cases it connects again, less and less often, and rings once when it hears again, as
// it may have missed something.
//
// What it costs: one connection, one empty statement each 15 s, and one notification sent
// through the pool for each connection that it makes.
package pglisten
