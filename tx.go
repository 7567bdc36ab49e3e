package coordd

import (
	"context"
	"database/sql"
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
	return db.tx(ctx, db.pool, fn)
}

// beginner is a pool or a connection of one.
type beginner interface {
	Querier
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

func (db *DB) tx(ctx context.Context, on beginner, fn func(tx Queries) error) error {
	d, err := db.server.resolve(ctx, on)
	if err != nil {
		return err
	}
	return db.server.retry(ctx, func() error {
		tx, err := on.BeginTx(ctx, &sql.TxOptions{Isolation: d.Isolation})
		if err != nil {
			return err
		}
		defer tx.Rollback() // after a commit it does nothing
		if err := fn(db.On(tx)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err // and not ErrUnknownOutcome: no commit was sent
		}
		if err := tx.Commit(); db.server.family.Class(err) == dialect.Transient {
			return err
		} else if err != nil {
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, db.server.explain(err))
		}
		return nil
	})
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
