package lock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/lease"
)

// ErrReleased is why the context of a lock has ended that was released.
var ErrReleased = lease.ErrReleased

// ErrRequested is why the context of a lock has ended that somebody asked its holder to release.
// It must be released all the same.
var ErrRequested = lease.ErrRequested

// RequestedError says who asked, and why; it is [ErrRequested].
type RequestedError = lease.RequestedError

// Held is one lock, or several, that are held. It is safe for concurrent use.
type Held struct {
	first string
	held  []*lease.Held // by name
	ctx   context.Context
	end   context.CancelCauseFunc
}

// join makes one context of those of all locks.
func (h *Held) join() {
	if len(h.held) == 1 {
		h.ctx = h.held[0].Context()
		return
	}
	h.ctx, h.end = context.WithCancelCause(context.WithoutCancel(h.held[0].Context()))
	for _, one := range h.held {
		context.AfterFunc(one.Context(), func() { h.end(context.Cause(one.Context())) })
	}
}

// Context ends when a lock does: with the session, when somebody asked for it, or when it was
// released. context.Cause says which.
func (h *Held) Context() context.Context { return h.ctx }

// Done is closed when a lock has ended.
func (h *Held) Done() <-chan struct{} { return h.ctx.Done() }

// Valid says whether all is held at this instant. It asks the clock and nobody else.
func (h *Held) Valid() bool { return h.Err() == nil }

// Err says why a lock has ended: it wraps [coordd.ErrLost], or is [ErrReleased]; nil: none has.
func (h *Held) Err() error {
	for _, one := range h.held {
		if err := one.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Token is the fencing token of the lock that was asked for first: greater than that of every
// grant of this lock before, for ever. It is below 2^53.
func (h *Held) Token() int64 { return h.TokenOf(h.first) }

// TokenOf is the token of one of the locks; 0: it is not one of them.
func (h *Held) TokenOf(name string) int64 {
	for _, one := range h.held {
		if one.Name() == prefix+name {
			return one.Token()
		}
	}
	return 0
}

// Release gives everything back. Call it once the work under the locks has returned, also where
// they were lost: a lock whose session was suspended and lives on stays taken until then.
// Further calls do nothing. It ignores the cancellation of ctx. An error says that the database did not
// answer: it is told again for as long as the session lives, which ends the lock too.
func (h *Held) Release(ctx context.Context) error {
	var err error
	for _, one := range h.held {
		err = errors.Join(err, one.Release(ctx))
	}
	return err
}

// Guard makes a transaction of the caller's fail with [coordd.ErrFenced] unless every lock is
// still held, and keeps them so until that transaction ends. Call it last, right before the
// commit. It fails with [coordd.ErrLost], and asks nobody, once Valid is false. After any error
// roll the transaction back. [Held.InTx] does it right.
func (h *Held) Guard(ctx context.Context, on coordd.Querier) error {
	for _, one := range h.held {
		if err := one.Guard(ctx, on); err != nil {
			return err
		}
	}
	return nil
}

// InTx runs fn in one transaction, guards it, and commits it. It fails with what fn returned;
// with [coordd.ErrFenced] or [coordd.ErrLost], and nothing is written; or with
// [coordd.ErrUnknownOutcome], where it may have been. It runs fn once.
func (h *Held) InTx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	return h.held[0].InTx(ctx, func(tx *sql.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		for _, one := range h.held[1:] { // InTx guards the first one last
			if err := one.Guard(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
}

// Fences are Guard as statements, one for each lock, for whoever runs them by other means.
func (h *Held) Fences(ctx context.Context) ([]coordd.Fence, error) {
	var all []coordd.Fence
	for _, one := range h.held {
		fence, err := one.Fence(ctx)
		if err != nil {
			return nil, fmt.Errorf("fence: %w", err)
		}
		all = append(all, fence)
	}
	return all, nil
}
