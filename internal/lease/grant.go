package lease

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/journal"
)

// place is a place in a queue; the zero one is that of who does not wait.
type place struct {
	id       string
	patience int // how many before it may be passed over
}

func (p place) args() []any { return []any{p.id, p.id} }

// Try takes a right if it can be had at once, and fails with a [*HeldError] if not; with a
// [*RequestedError] that is [coordd.ErrHeld] where somebody asked for it in that moment; and with
// [coordd.ErrQuarantine] while the database's history is in quarantine. Its ctx bounds the call
// and nothing after it; so does the TTL, as a row that is locked says nothing.
func Try(ctx context.Context, s *heartbeat.Session, w Want) (*Held, error) {
	k := of(s)
	ctx, cancel := k.whileLiving(ctx)
	defer cancel()
	ctx, expire := context.WithTimeout(ctx, k.TTL)
	defer expire()
	return k.try(ctx, w, place{})
}

// whileLiving is ctx, and ends with the session too.
func (k *keeper) whileLiving(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(k.Life, func() { cancel(context.Cause(k.Life)) })
	return ctx, func() { stop(); cancel(nil) }
}

// try tries for as long as it is not clear whether the right can be had.
func (k *keeper) try(ctx context.Context, w Want, at place) (*Held, error) {
	st, warm := k.recall(w.Name)
	if !warm {
		var err error
		if st, err = k.read(ctx, w, at); err != nil {
			return nil, err
		}
	}
	return k.tryFrom(ctx, w, at, st)
}

// tryFrom is try for who knows how the right stood a moment ago.
func (k *keeper) tryFrom(ctx context.Context, w Want, at place, st standing) (*Held, error) {
	for {
		switch {
		case st.history < 0 && -st.history == k.History && st.intact:
			return nil, coordd.ErrQuarantine
		case st.history != k.History || !st.intact:
			return nil, fmt.Errorf("%w: this session is about to end", coordd.ErrHistoryLost)
		case !st.free(w) || st.ahead > at.patience:
			return nil, st.heldError(w)
		}
		h, again, err := k.take(ctx, w, st, at)
		if !again {
			return h, err
		}
		at.patience = 0 // nobody has let it lie that has just moved
		var unread error
		if sleep(ctx, time.Millisecond) {
			st, unread = k.read(ctx, w, at)
		}
		switch {
		case ctx.Err() != nil:
			return nil, ended(context.Cause(ctx), cmp.Or(err, unread))
		case unread != nil:
			return nil, unread
		}
	}
}

// read reads how a right stands, and makes its row where there is none.
func (k *keeper) read(ctx context.Context, w Want, at place) (st standing, err error) {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	for begun := false; ; {
		err = k.DB.Get(ctx, []any{&st.token, &st.holder, &st.state, &st.member, &st.address, &st.client, &st.since, &st.ahead, &st.placed, &st.rows, &st.sharing, &st.floor, &st.history, &st.intact},
			stmtRead, append(at.args(), at.id, w.Name)...)
		if !errors.Is(err, sql.ErrNoRows) {
			k.sawFloor(st.floor)
			return st, err
		}
		changed, err := k.DB.Exec(ctx, stmtBegin, w.Name)
		if err != nil {
			return st, err
		}
		if changed == 0 && begun {
			return st, fmt.Errorf("%w: coordd_meta lacks rows", coordd.ErrSchema)
		}
		begun = true
	}
}

// take sends one grant. Again says that it may be tried again: somebody was faster, what was known
// is old, or, with an error, the reply was lost. What is not answered is settled before it
// returns, or, if ctx ends, behind it.
func (k *keeper) take(ctx context.Context, w Want, st standing, at place) (_ *Held, again bool, err error) {
	id := uuid.NewString()
	h, err := k.hold(ctx, w, id, st.next())
	if err != nil {
		return nil, false, err
	}
	k.known(id, h)
	granted, err := k.grant(ctx, h, st, at)
	if err != nil && !certain(err) {
		lost := err
		// Not beyond the end of what is asked for: a session that is left waits for it.
		settling, cancel := context.WithCancel(ctx)
		defer context.AfterFunc(h.ctx, cancel)()
		granted, err = k.settle(settling, h, st)
		cancel()
		if err != nil {
			k.Go(func(life context.Context) { k.settleBehind(life, h, st) })
			if cause := context.Cause(ctx); cause != nil && !errors.Is(lost, cause) {
				lost = fmt.Errorf("%w: %w", cause, lost)
			}
			return nil, false, lost
		}
		if !granted {
			err, again = lost, errors.Is(lost, coordd.ErrUnreachable) || errors.Is(lost, coordd.ErrSlow) // others would be so again
		}
	}
	if !granted {
		h.drop()
		k.unknown(id)
		return nil, again || err == nil, err
	}
	switch why := h.Err(); {
	case errors.Is(why, ErrRequested): // meanwhile, and the session lives
		return nil, false, errors.Join(fmt.Errorf("%w: %w", coordd.ErrHeld, context.Cause(h.ctx)), h.Release(ctx))
	case why != nil: // it was suspended, or has ended, meanwhile
		return nil, false, errors.Join(why, h.Release(ctx))
	}
	return h, false, nil
}

// grant is one statement where that will do.
func (k *keeper) grant(ctx context.Context, h *Held, st standing, at place) (granted bool, err error) {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	if !h.want.shared() && st.rows == 0 && at.id == "" && !h.want.Recorded {
		return k.compareAndSet(ctx, k.DB.Queries, h, st, at)
	}
	err = k.DB.Tx(ctx, func(tx coordd.Queries) error {
		var err error
		if granted, err = k.compareAndSet(ctx, tx, h, st, at); err != nil || !granted {
			return err
		}
		if st.rows > 0 {
			if err := deleteEach(ctx, tx, stmtDead, stmtDisplace, h.want.Name); err != nil {
				return err
			}
		}
		if h.want.shared() {
			if _, err := tx.Exec(ctx, stmtShare, h.id, h.want.Name, k.session.ID(), h.token, h.want.Client); err != nil {
				return err
			}
		}
		if at.id != "" {
			if _, err := tx.Exec(ctx, stmtLeaveQueue, at.id); err != nil {
				return err
			}
		}
		return k.record(ctx, tx, h.want, "granted", h.token)
	})
	if granted && err == nil && h.want.Recorded {
		journal.Ring(ctx, k.DB)
	}
	return granted && err == nil, err
}

// deleteEach deletes what a statement selects row by row: on the MySQL family a delete with a
// subquery would lock the rows of those who beat.
func deleteEach(ctx context.Context, q coordd.Queries, which, stmt string, args ...any) error {
	ids, err := coordd.All(ctx, q, func(id *string) []any { return []any{id} }, which, args...)
	for _, id := range ids {
		if err == nil {
			_, err = q.Exec(ctx, stmt, id)
		}
	}
	return err
}

// record tells of what has become of a right, where that is wanted.
func (k *keeper) record(ctx context.Context, tx coordd.Queries, w Want, action string, token int64) error {
	if !w.Recorded {
		return nil
	}
	data, err := json.Marshal(map[string]any{"token": token, "member": k.session.Name()})
	if err != nil {
		return err
	}
	return journal.Append(ctx, tx, journal.Event{Topic: kind(w.Name), Subject: subject(w.Name), Action: action, MemberID: k.session.ID(), Data: string(data)})
}

// compareAndSet moves the token on.
func (k *keeper) compareAndSet(ctx context.Context, q coordd.Queries, h *Held, st standing, at place) (bool, error) {
	var holder, grantID any // null: nobody holds it alone
	if !h.want.shared() {
		holder, grantID = k.session.ID(), h.id
	}
	args := append([]any{holder, grantID, h.token, h.want.Value, h.want.Client, h.want.Name, st.token}, at.args()...)
	changed, err := q.Exec(ctx, stmtGrant, append(args, at.patience, h.token, k.History)...)
	return changed == 1, err
}

// settle finds out whether a grant has been given whose reply was lost. If not, it never will.
func (k *keeper) settle(ctx context.Context, h *Held, st standing) (granted bool, err error) {
	err = insist(ctx, func() error {
		ctx, cancel := k.bounded(ctx)
		defer cancel()
		changed, err := k.DB.Exec(ctx, stmtSupersede, h.want.Name, st.token)
		if err != nil || changed == 1 {
			return err
		}
		var mine int
		err = k.DB.Get(ctx, []any{&mine}, stmtMine, h.want.Name, h.id, k.session.ID(), h.id, k.session.ID())
		granted = mine > 0
		return err
	})
	return granted && err == nil, err
}

// settleBehind settles for a caller who has gone, and gives back what he had got.
func (k *keeper) settleBehind(life context.Context, h *Held, st standing) {
	h.drop()
	granted, err := k.settle(life, h, st)
	switch {
	case err != nil: // the session has ended, and everything with it
	case granted:
		_ = insist(life, func() error { return k.giveBack(life, h.want, h.id, h.token) })
	}
	k.unknown(h.id)
}

// giveBack frees what is held under a grant id, and wakes who waits for it.
func (k *keeper) giveBack(ctx context.Context, w Want, id string, token int64) error {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	stmt := stmtRelease
	if w.shared() {
		stmt = stmtReleaseShared
	}
	if !w.Recorded {
		changed, err := k.DB.Exec(ctx, stmt+andNobodyWaits, w.Name, id, token, w.Name)
		if err != nil {
			return err
		}
		if changed == 1 {
			if !w.shared() {
				k.remember(w.Name, token)
			}
			return nil
		}
	}
	err := k.DB.Tx(ctx, func(tx coordd.Queries) error {
		changed, err := tx.Exec(ctx, stmt, w.Name, id, token)
		if err != nil || changed == 0 {
			return err
		}
		return k.record(ctx, tx, w, "released", token)
	})
	if err != nil {
		return err
	}
	k.wakeFirst(ctx, w.Name)
	if w.Recorded {
		journal.Ring(ctx, k.DB)
	}
	return nil
}
