package lease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dialect"
)

// A guard reads its row under a share lock, in the caller's own transaction: whoever takes the
// right over waits for that transaction, and whoever was taken over from finds no row. The
// server ends a transaction that stays idle after it.
const (
	stmtGuard       = `select {idle at most} from coordd_leases where name = ? and grant_id = ? and token = ? {share}`
	stmtGuardShared = `select {idle at most} from coordd_shared where lease = ? and grant_id = ? and token = ? {share}`

	// Where a share lock holds on one node only the guard changes the row. 0 rows: the right
	// is another's.
	stmtGuardBump       = `update coordd_leases set guards = guards + 1 where name = ? and grant_id = ? and token = ?`
	stmtGuardBumpShared = `update coordd_shared set guards = guards + 1 where lease = ? and grant_id = ? and token = ?`
)

// Guard makes a transaction of the caller's fail with [coordd.ErrFenced] unless this right is
// still the newest of its lease, and keeps it so until that transaction ends. Call it last,
// right before the commit: guarded first, a process that freezes inside its transaction keeps
// everybody else out for as long. It fails with [coordd.ErrLost], and asks nobody, once Valid
// is false. On is a transaction of the same database; after any error roll it back.
func (h *Held) Guard(ctx context.Context, on coordd.Querier) error {
	if err := h.Err(); err != nil {
		return err
	}
	if err := h.check(ctx, on); err != nil {
		return fmt.Errorf("guard %s: %w", called(h.want.Name), err)
	}
	return nil
}

func (h *Held) check(ctx context.Context, on coordd.Querier) error {
	bumps, err := h.k.bumps(ctx)
	if err != nil {
		return err
	}
	stmt, args := h.guard(bumps)
	q := h.k.DB.On(on)
	if bumps {
		changed, err := q.Exec(ctx, stmt, args...)
		if err == nil && changed == 0 {
			err = coordd.ErrFenced
		}
		return err
	}
	var bound string
	err = q.Get(ctx, []any{&bound}, stmt, args...)
	if errors.Is(err, sql.ErrNoRows) {
		err = coordd.ErrFenced
	}
	return err
}

// bumps says whether guards must change the row.
func (k *keeper) bumps(ctx context.Context) (bool, error) {
	product, err := k.DB.Product(ctx)
	return product == dialect.Galera.Name, err
}

func (h *Held) guard(bumps bool) (stmt string, args []any) {
	args = []any{h.want.Name, h.id, h.token}
	switch shared := h.want.shared(); {
	case bumps && shared:
		return stmtGuardBumpShared, args
	case bumps:
		return stmtGuardBump, args
	case shared:
		stmt = stmtGuardShared
	default:
		stmt = stmtGuard
	}
	return stmt, append([]any{fmt.Sprint(h.k.TTL.Milliseconds())}, args...)
}

// Fence is Guard as a statement with its arguments, in the words of the database, for whoever
// runs it by other means. One row, or one row changed, means that the right is still held;
// none, that the transaction must be rolled back.
func (h *Held) Fence(ctx context.Context) (coordd.Fence, error) {
	bumps, err := h.k.bumps(ctx)
	if err != nil {
		return coordd.Fence{}, err
	}
	stmt, args := h.guard(bumps)
	query, err := h.k.DB.Text(ctx, stmt)
	return coordd.Fence{Query: query, Args: args, Token: h.token}, err
}

// InTx runs fn in one READ COMMITTED transaction, guards it, and commits it. It fails with
// what fn returned; with [coordd.ErrFenced] or [coordd.ErrLost], and nothing is written; or
// with [coordd.ErrUnknownOutcome]. It runs fn once.
func (h *Held) InTx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	if err := h.Err(); err != nil {
		return err
	}
	return h.k.DB.InTx(ctx, func(tx *sql.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return h.Guard(ctx, tx)
	})
}
