package coordd

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/coordd/coordd/internal/dialect"
)

// Tx runs fn in one READ COMMITTED transaction and commits it, or rolls it back if fn
// fails. A transaction that the server rolled back on account of others (deadlock,
// serialization failure, lock wait, busy) is run again, so fn may run more than once.
//
// [ErrUnknownOutcome] says that the commit was sent and not answered: the transaction
// may have been committed, or may yet be. Any other error means that it was not.
func (db *DB) Tx(ctx context.Context, fn func(tx Queries) error) error {
	return db.tx(ctx, nil, fn)
}

// InTx is Tx on the *sql.Tx itself, and runs fn once: a transaction that the server rolled back
// on account of others fails with [ErrContended].
func (db *DB) InTx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	return db.once(ctx, nil, fn)
}

// tx is Tx on a connection that the caller keeps, or on one of the pool if that is nil.
func (db *DB) tx(ctx context.Context, kept *sql.Conn, fn func(tx Queries) error) error {
	return db.server.retry(ctx, func() error {
		return db.once(ctx, kept, func(tx *sql.Tx) error {
			if stmt := db.server.family.EndIdle; stmt != "" {
				if _, err := tx.ExecContext(ctx, stmt); err != nil {
					return db.server.explain(err)
				}
			}
			return fn(db.On(tx))
		})
	})
}

// once runs a transaction. A connection on which it may not have ended is thrown away: a node of
// Galera that has lost its cluster refuses to roll back and to commit, and what came next on that
// connection would become a part of the transaction, or commit it.
func (db *DB) once(ctx context.Context, kept *sql.Conn, fn func(*sql.Tx) error) error {
	conn, tx, err := db.begin(ctx, kept)
	if err != nil {
		return db.server.explain(err)
	}
	if conn != kept {
		defer conn.Close()
	}
	ended := false
	defer func() {
		if !ended && tx.Rollback() != nil {
			conn.Raw(func(any) error { return driver.ErrBadConn })
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // and not ErrUnknownOutcome: no commit was sent
	}
	err = tx.Commit()
	if err == nil || db.server.family.Class(err) == dialect.Transient {
		ended = true // rolled back by the server, or, on SQLite while others read, by its driver
		return db.server.explain(err)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, db.server.explain(err))
}

// begin begins a transaction, on the kept connection if there is one. As the pool would, it takes
// another one where an idle connection has broken meanwhile.
func (db *DB) begin(ctx context.Context, kept *sql.Conn) (conn *sql.Conn, tx *sql.Tx, err error) {
	for idle := db.pool.Stats().Idle; ; idle-- {
		conn = kept
		if conn == nil {
			if conn, err = db.pool.Conn(ctx); err != nil {
				return nil, nil, err
			}
		}
		var d *dialect.Dialect
		if d, err = db.server.resolve(ctx, conn); err == nil {
			tx, err = conn.BeginTx(ctx, &sql.TxOptions{Isolation: d.Isolation})
		}
		if err == nil || kept != nil {
			return conn, tx, err
		}
		conn.Close()
		if idle <= 0 || !errors.Is(err, driver.ErrBadConn) {
			return nil, nil, err
		}
	}
}

// retry runs do until it fails for a reason of its own, or ctx ends. It is the one
// place where coordd runs anything again.
func (s *server) retry(ctx context.Context, do func() error) error {
	pause := &backoff.ExponentialBackOff{
		InitialInterval:     5 * time.Millisecond,
		RandomizationFactor: 0.5,
		Multiplier:          2,
		MaxInterval:         250 * time.Millisecond,
	}
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = do()
		if last == nil || s.family.Class(last) == dialect.Transient {
			return struct{}{}, last
		}
		return struct{}{}, backoff.Permanent(last)
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return s.explain(last) // and not that ctx ended while it waited to try again
	}
	return nil
}
