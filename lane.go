package coordd

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"
)

// Lane is one connection that is kept out of the pool for one purpose, so that a pool
// that others have exhausted does not hold it up. Where the pool's limit is too small
// to spare a connection it is the pool itself. Close gives the connection back.
type Lane struct {
	db   *DB
	mu   sync.Mutex // one statement at a time
	conn *sql.Conn  // nil until the first statement, and after a failed one
}

// Lane returns a lane of this DB. It costs nothing until it is used.
func (db *DB) Lane() *Lane { return &Lane{db: db} }

// Exec is [Queries.Exec] on the lane's own connection. After an error the connection is
// thrown away, so that the next statement does not meet the same half-dead server.
func (l *Lane) Exec(ctx context.Context, stmt string, args ...any) (changed int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil && !l.db.spare() {
		return l.db.Exec(ctx, stmt, args...)
	}
	if l.conn == nil {
		conn, err := l.db.pool.Conn(ctx)
		if err != nil {
			l.db.kept.Add(-1)
			return 0, l.db.server.explain(err)
		}
		l.conn = conn
	}
	q := l.db.On(l.conn)
	q.retries = true
	changed, err = q.Exec(ctx, stmt, args...)
	if err != nil {
		l.drop()
	}
	return changed, err
}

// Close gives the connection back to the pool.
func (l *Lane) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
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
