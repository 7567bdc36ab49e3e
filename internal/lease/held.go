package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/journal"
)

// ErrReleased is why the context of a right has ended that was given back.
var ErrReleased = errors.New("released")

// ErrRequested is why the context of a right has ended that somebody asked for.
var ErrRequested = errors.New("somebody asked for it to be given up")

// RequestedError says who asked for a right to be given up, and why. It is [ErrRequested].
type RequestedError struct{ By, Reason string }

func (e *RequestedError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrRequested, e.By, e.Reason)
}

// Unwrap is [ErrRequested].
func (e *RequestedError) Unwrap() error { return ErrRequested }

// Held is a right that is held. It is safe for concurrent use.
type Held struct {
	k     *keeper
	want  Want
	id    string
	token int64

	ctx  context.Context
	end  context.CancelCauseFunc
	drop func() // tells the session that the work has returned

	mu        sync.Mutex
	released  bool // the release was sent: this grant never counts again
	requested bool // somebody asked for it, perhaps when its context had ended already
}

// hold hangs a right on the session from before it is asked for. It is not had yet.
func (k *keeper) hold(ctx context.Context, w Want, id string, token int64) (*Held, error) {
	held, drop, err := k.session.Hold(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	h := &Held{k: k, want: w, id: id, token: token, drop: drop}
	h.ctx, h.end = context.WithCancelCause(held)
	return h, nil
}

// Name is the lease's.
func (h *Held) Name() string { return h.want.Name }

// Token is the fencing token: greater than that of any grant of this lease before.
func (h *Held) Token() int64 { return h.token }

// Context ends when the right does: with the session, when somebody asked for it, or when it
// was given back. context.Cause says which.
func (h *Held) Context() context.Context { return h.ctx }

// Valid says whether the right is held at this instant. It asks the clock and nobody else.
func (h *Held) Valid() bool { return h.ctx.Err() == nil && h.k.session.Valid() }

// Err says why the right has ended; nil: it has not. It wraps [coordd.ErrLost] where the
// session's own end is the cause, for now or for good.
func (h *Held) Err() error {
	switch cause := context.Cause(h.ctx); {
	case cause == nil && h.k.session.Valid():
		return nil
	case cause == nil && h.k.session.Err() != nil:
		return fmt.Errorf("%s: %w: %w", called(h.want.Name), coordd.ErrLost, h.k.session.Err())
	case cause == nil: // the clock has ended it, and nobody has seen that yet
		return fmt.Errorf("%s: %w: %w", called(h.want.Name), coordd.ErrLost, heartbeat.ErrSuspended)
	case errors.Is(cause, ErrReleased), errors.Is(cause, coordd.ErrLost):
		return fmt.Errorf("%s: %w", called(h.want.Name), cause)
	default:
		return fmt.Errorf("%s: %w: %w", called(h.want.Name), coordd.ErrLost, cause)
	}
}

// Release gives the right back. Call it once the work under it has returned; further calls do
// nothing. It ignores the cancellation of ctx and takes a statement's timeout at the most. An
// error says that the database did not answer: it is told again for as long as the session
// lives, which ends the right too.
func (h *Held) Release(ctx context.Context) error {
	h.mu.Lock()
	again := h.released
	h.released = true
	h.mu.Unlock()
	if again {
		return nil
	}
	h.end(ErrReleased)
	err := h.k.giveBack(context.WithoutCancel(ctx), h.want, h.id, h.token)
	if err == nil {
		h.k.unknown(h.id)
	} else {
		h.k.Go(func(life context.Context) {
			_ = insist(life, func() error { return h.k.giveBack(life, h.want, h.id, h.token) })
			h.k.unknown(h.id)
		})
		err = fmt.Errorf("release %s: %w; it is told again", called(h.want.Name), err)
	}
	h.drop()
	return err
}

// Resume takes up a right again whose session was suspended and is connected again, with the
// same token and without a write: nobody else can have had it, as the session never died. The
// work under it must have returned. It says false where the row has another holder, or the
// right was released or asked for.
func (h *Held) Resume(ctx context.Context) (again *Held, ok bool, err error) {
	if h.given() {
		return nil, false, nil
	}
	again, err = h.k.hold(ctx, h.want, h.id, h.token)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := h.k.bounded(ctx)
	defer cancel()
	var mine int
	me := h.k.session.ID()
	err = h.k.DB.Get(ctx, []any{&mine}, stmtMine, h.want.Name, h.id, me, h.id, me)
	if err != nil || mine == 0 || !h.handOver(again) {
		again.drop()
		return nil, false, err
	}
	return again, true, nil
}

// given says that the right was given back, or is to be.
func (h *Held) given() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.released || h.requested
}

// handOver leaves the right to another handle, unless it was given back or asked for meanwhile.
func (h *Held) handOver(to *Held) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released || h.requested {
		return false
	}
	h.released = true
	h.end(ErrReleased)
	h.drop()
	h.k.known(h.id, to)
	return true
}

// Watch asks from time to time whether the right may still be held, and ends it with the
// answer if not. It ends with the right.
func (h *Held) Watch(every time.Duration, ask func() error) {
	h.k.Go(func(context.Context) {
		for sleep(h.ctx, every) {
			if err := ask(); err != nil {
				h.end(err)
			}
		}
	})
}

// request is what somebody asks of those who hold a lease.
type request struct {
	Grants []string `json:"grants"` // whom it concerns
	By     string   `json:"by"`
	Reason string   `json:"reason"`
}

// obey ends the right if a request concerns it.
func (h *Held) obey(text string) {
	var r request
	if err := json.Unmarshal([]byte(text), &r); err != nil || !slices.Contains(r.Grants, h.id) {
		return
	}
	h.mu.Lock()
	h.requested = true
	h.mu.Unlock()
	h.end(&RequestedError{r.By, r.Reason})
}

// stmtPublish says what everybody may read of the holder. 0 rows: it is not held any more.
const stmtPublish = `update coordd_leases set value = ?, guards = guards + 1 where name = ? and grant_id = ? and token = ?`

// Publish sets the value that goes with the right for as long as it is held.
func (h *Held) Publish(ctx context.Context, value string) error {
	if err := h.Err(); err != nil {
		return err
	}
	ctx, cancel := h.k.bounded(ctx)
	defer cancel()
	err := h.k.DB.Tx(ctx, func(tx coordd.Queries) error {
		changed, err := tx.Exec(ctx, stmtPublish, value, h.want.Name, h.id, h.token)
		if err == nil && changed == 0 {
			err = coordd.ErrLost
		}
		if err != nil {
			return err
		}
		return h.k.record(ctx, tx, h.want, "published", h.token)
	})
	if err != nil {
		return fmt.Errorf("publish %s: %w", called(h.want.Name), err)
	}
	journal.Ring(ctx, h.k.DB)
	return nil
}
