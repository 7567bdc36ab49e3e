package assign

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dialect"
)

// Job is a job that this member owns.
type Job struct {
	Key     string
	Payload string
	Labels  map[string]string
	Weight  int

	holding *holding
}

// Group is the job's group.
func (j Job) Group() string { return j.holding.k.group }

// Slot is the slot that the job is in.
func (j Job) Slot() int { return j.holding.slot }

// Epoch is the fencing token of the job's slot: greater than that of every owner before, for as
// long as the database loses nothing.
func (j Job) Epoch() int64 { return j.holding.epoch }

// Valid says whether the job is this member's at this instant. It asks the clock and nobody
// else.
func (j Job) Valid() bool { return j.holding.valid() }

const (
	// A guard reads the slot's row under a share lock, in the caller's own transaction: whoever
	// moves the slot waits for that transaction. 0 rows: it is another's.
	stmtGuard = `select {idle at most} from coordd_slots where grp = ? and slot = ? and owner = ? and epoch = ? {share}`

	// Where a share lock holds on one node only the guard changes the row.
	stmtGuardBump = `update coordd_slots set guards = guards + 1 where grp = ? and slot = ? and owner = ? and epoch = ?`
)

// Guard makes a transaction of the caller's fail with [coordd.ErrFenced] unless this member still
// owns the job, and keeps it so until that transaction ends. Call it last, right before the
// commit. It fails with [coordd.ErrLost], and asks nobody, while the session is not valid. The job of
// a slot that is to move is this member's until its work has returned, so what is under way when
// its context ends can be finished and written under Guard, with a context of its own. On is a
// transaction of the same database; after any error roll it back. Jobs of one slot share their
// fence: one call guards a batch of them.
func (j Job) Guard(ctx context.Context, on coordd.Querier) error {
	h := j.holding
	if !h.k.session.Valid() {
		return fmt.Errorf("guard job %q of group %q: %w", j.Key, h.k.group, coordd.ErrLost)
	}
	stmt, args, bumps, err := h.guard(ctx)
	if err == nil {
		q := h.k.DB.On(on)
		if bumps {
			var changed int64
			if changed, err = q.Exec(ctx, stmt, args...); err == nil && changed == 0 {
				err = coordd.ErrFenced
			}
		} else {
			var bound string
			if err = q.Get(ctx, []any{&bound}, stmt, args...); errors.Is(err, sql.ErrNoRows) {
				err = coordd.ErrFenced
			}
		}
	}
	if err != nil {
		return fmt.Errorf("guard job %q of group %q: %w", j.Key, h.k.group, err)
	}
	return nil
}

// Fence is Guard as a statement with its arguments, in the words of the database, for whoever
// runs it by other means or makes it a part of a statement of their own. One row, or one row
// changed, means that this member still owns the job; none, that the transaction must be rolled
// back. Its token is the epoch.
func (j Job) Fence(ctx context.Context) (coordd.Fence, error) {
	h := j.holding
	stmt, args, _, err := h.guard(ctx)
	if err != nil {
		return coordd.Fence{}, err
	}
	query, err := h.k.DB.Text(ctx, stmt)
	return coordd.Fence{Query: query, Args: args, Token: h.epoch}, err
}

func (h *holding) guard(ctx context.Context) (stmt string, args []any, bumps bool, err error) {
	product, err := h.k.DB.Product(ctx)
	args = []any{h.k.group, h.slot, h.k.session.ID(), h.epoch}
	if product == dialect.Galera.Name {
		return stmtGuardBump, args, true, err
	}
	return stmtGuard, append([]any{fmt.Sprint(h.k.TTL.Milliseconds())}, args...), false, err
}
