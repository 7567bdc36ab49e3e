package coordd

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

// Lane is one connection that is kept out of the pool for one purpose, so that a pool
// that others have exhausted does not hold it up. Where the pool's limit is too small
// to spare a connection it is the pool itself. It serves one goroutine at a time.
//
// A statement that breaks the connection gives its place in the pool up: where the pool is
// exhausted at that moment, the next statement waits in line as everybody does.
type Lane struct {
	db   *DB
	conn *sql.Conn // nil before it was opened, and after a failed statement
}

// Lane returns a lane of this DB, not open yet.
func (db *DB) Lane() *Lane { return &Lane{db: db} }

// Open takes the connection, if that has not been done and the pool can spare one. Exec
// does it too; who is sure to need it takes it early.
func (l *Lane) Open(ctx context.Context) error {
	if l.conn != nil || !l.db.spare() {
		return nil
	}
	conn, err := l.db.pool.Conn(ctx)
	if err != nil {
		l.db.kept.Add(-1)
		return l.db.server.explain(err)
	}
	l.conn = conn
	return nil
}

// Exec is [Queries.Exec] on the lane's own connection. After an error other than a lock
// that others held the connection is thrown away, so that the next statement does not meet
// the same half-dead or demoted server.
func (l *Lane) Exec(ctx context.Context, stmt string, args ...any) (changed int64, err error) {
	err = l.use(ctx, func(conn *sql.Conn) error {
		q := l.db.Queries
		if conn != nil {
			q = l.db.On(conn)
		}
		q.retries = true
		changed, err = q.Exec(ctx, stmt, args...)
		return err
	})
	return changed, err
}

// Tx is [DB.Tx] on the lane's own connection.
func (l *Lane) Tx(ctx context.Context, fn func(tx Queries) error) error {
	return l.use(ctx, func(conn *sql.Conn) error { return l.db.tx(ctx, conn, fn) })
}

// use does something on the lane's connection, or on the pool where that is nil.
func (l *Lane) use(ctx context.Context, do func(*sql.Conn) error) error {
	if err := l.Open(ctx); err != nil {
		return err
	}
	err := do(l.conn)
	if err != nil && l.conn != nil && !errors.Is(err, ErrContended) {
		l.drop()
	}
	return err
}

// Close gives the connection back to the pool.
func (l *Lane) Close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
		l.db.kept.Add(-1)
	}
}

// drop ends the connection instead of giving it back.
func (l *Lane) drop() {
	l.conn.Raw(func(any) error { return driver.ErrBadConn })
	l.conn.Close()
	l.conn = nil
	l.db.kept.Add(-1)
}

// spare takes one connection of the pool's limit, if one is left beside it for everyone
// else.
func (db *DB) spare() bool {
	limit := int64(db.pool.Stats().MaxOpenConnections) // 0: no limit
	if kept := db.kept.Add(1); limit == 0 || kept < limit {
		return true
	}
	db.kept.Add(-1)
	return false
}
