package coordd

import (
	"context"
	"database/sql"

	"github.com/coordd/coordd/internal/dialect"
)

// Querier is what a *sql.DB, *sql.Conn and *sql.Tx have in common.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Queries runs statements in coordd's own wording: ? for arguments and a few
// {fragments}, the same text on every database. Its errors are of type [*Error] where
// there is something to say about the cause.
type Queries struct {
	on      Querier
	server  *server
	retries bool // each statement is a transaction of its own
}

// Exec runs a statement and returns the number of rows that it changed.
func (q Queries) Exec(ctx context.Context, stmt string, args ...any) (changed int64, err error) {
	err = q.run(ctx, func(d *dialect.Dialect) error {
		result, err := q.on.ExecContext(ctx, d.Text(stmt), args...)
		if err != nil {
			return err
		}
		changed, err = result.RowsAffected()
		return err
	})
	return changed, err
}

// Get reads one row into dest, or fails with [sql.ErrNoRows].
func (q Queries) Get(ctx context.Context, dest []any, stmt string, args ...any) error {
	return q.run(ctx, func(d *dialect.Dialect) error {
		return q.on.QueryRowContext(ctx, d.Text(stmt), args...).Scan(dest...)
	})
}

// All reads every row of a statement; fields says where the columns of a row go.
func All[T any](ctx context.Context, q Queries, fields func(*T) []any, stmt string, args ...any) (all []T, err error) {
	err = q.run(ctx, func(d *dialect.Dialect) error {
		all = nil
		rows, err := q.on.QueryContext(ctx, d.Text(stmt), args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var t T
			if err := rows.Scan(fields(&t)...); err != nil {
				return err
			}
			all = append(all, t)
		}
		return rows.Err()
	})
	return all, err
}

// run does one statement, again if it may, and explains its error.
func (q Queries) run(ctx context.Context, do func(*dialect.Dialect) error) error {
	d, err := q.server.resolve(ctx, q.on)
	if err != nil {
		return err
	}
	if !q.retries {
		return q.server.explain(do(d))
	}
	return q.server.retry(ctx, func() error { return do(d) })
}
