package lease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
)

const (
	stmtPlaced = `select ticket from coordd_waiters where id = ?` // 0 rows: it has none yet

	// stmtTicket moves a queue's counter on, which is a row of its own because guards lock
	// that of the lease. 0 rows: nobody has waited before.
	stmtTicket     = `update coordd_queues set next_ticket = next_ticket + 1 where lease = ?`
	stmtBeginQueue = `insert into coordd_queues (lease, next_ticket) values (?, 0) {or keep next_ticket}` // 0 rows: it is there
	stmtNextTicket = `select next_ticket from coordd_queues where lease = ?`

	stmtEnqueue = `insert into coordd_waiters (id, lease, ticket, priority, member_id, since_us) values (?, ?, ?, ?, ?, {now})`

	stmtLeaveQueue = `delete from coordd_waiters where id = ?` // 0 rows: it has left

	// stmtFirst is the first in line that lives, and how many stand there that have ended. 0
	// rows: nobody who lives waits.
	stmtFirst = `select w.id, (select count(*) from coordd_waiters e where e.lease = w.lease
			and not exists (select 1 from coordd_heartbeats h where h.member_id = e.member_id and h.state in ` + queued + `))
		from coordd_waiters w join coordd_heartbeats b on b.member_id = w.member_id
		where w.lease = ? and b.state in ` + queued + `
		order by w.priority desc, w.ticket limit 1`

	// stmtEnded is who ended while it waited. 0 rows: nobody.
	stmtEnded = `select w.id from coordd_waiters w where w.lease = ?
		and not exists (select 1 from coordd_heartbeats h where h.member_id = w.member_id and h.state in ` + queued + `)`
)

// How long those who wait do so between two looks, without a ring for them. The first two in line
// begin with the shortest pause after anything has changed, and double it.
const (
	firstPause = 25 * time.Millisecond
	nearPause  = 200 * time.Millisecond // at most, of the first two where no ring of others arrives
	farPause   = time.Second            // at most, of everybody else
	calmPause  = 50 * time.Millisecond  // at least, if a ring says no more than that something has changed

	// overlooked is how long a right lies free before the next in line takes it: longer than the
	// first one's pauses, which may be frozen and not dead yet.
	overlooked = farPause + nearPause
)

// Acquire waits its turn for a right: first come, first served among those of one priority who
// live. An outage of the database does not end the wait, nor does a suspension of the session.
// Its ctx bounds the call and nothing after it.
func Acquire(ctx context.Context, s *heartbeat.Session, w Want) (*Held, error) {
	k := of(s)
	h, err := k.try(ctx, w, place{})
	if h != nil || ctx.Err() != nil || hopeless(err) || !passing(err) {
		return h, err
	}
	life, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(k.Life, func() { cancel(s.Err()) })()
	h, err = k.wait(life, w)
	if cause := context.Cause(life); h == nil && cause != nil {
		err = fmt.Errorf("waiting for it: %w", ended(cause, err))
	}
	return h, err
}

type onQueued struct{}

// OnQueued is a context with which [Acquire] calls f when it has its place in the queue.
func OnQueued(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, onQueued{}, f)
}

// waits says whether what is not to be had now may be had later.
func waits(err error) bool {
	return errors.Is(err, coordd.ErrHeld) || errors.Is(err, coordd.ErrQuarantine) || errors.Is(err, heartbeat.ErrSuspended)
}

// hopeless says whether an error is somebody's mistake, that nobody corrects by waiting.
func hopeless(err error) bool {
	for _, kind := range []error{coordd.ErrSchema, coordd.ErrForbidden, coordd.ErrDenied, coordd.ErrNoDatabase} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// passing says whether an error may go away by itself, for somebody who was answered before.
func passing(err error) bool {
	return waits(err) || errors.Is(err, coordd.ErrHistoryLost) || !errors.Is(err, coordd.ErrLost) && !errors.Is(err, heartbeat.ErrLeft)
}

// wait stands in the queue until the right is had or ctx ends.
func (k *keeper) wait(ctx context.Context, w Want) (*Held, error) {
	id := uuid.NewString()
	k.stand(id)
	rings, stop := k.DB.Listen(topic(id))
	defer stop()
	changes, deaf := k.DB.Listen("")
	defer deaf()
	err := k.enqueue(ctx, w, id)
	if err == nil {
		if queued, ok := ctx.Value(onQueued{}).(func()); ok {
			queued()
		}
		var h *Held
		if h, err = k.await(ctx, w, place{id: id}, rings, changes); h != nil {
			k.leave(id)
			if w.shared() {
				k.wakeFirst(ctx, w.Name) // who may share it too
			}
			return h, nil
		}
	}
	k.Go(func(life context.Context) {
		_ = insist(life, func() error { return k.forgetPlace(life, w.Name, id) })
		k.leave(id)
	})
	return nil, err
}

// enqueue takes a ticket, once, however often it asks.
func (k *keeper) enqueue(ctx context.Context, w Want, id string) error {
	return insist(ctx, func() error {
		ctx, cancel := k.bounded(ctx)
		defer cancel()
		return k.DB.Tx(ctx, func(tx coordd.Queries) error {
			var ticket int64
			if err := tx.Get(ctx, []any{&ticket}, stmtPlaced, id); !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			ticket, err := draw(ctx, tx, w.Name)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, stmtEnqueue, id, w.Name, ticket, w.Priority, k.session.ID())
			return err
		})
	})
}

// draw draws the next ticket of a queue, which stays locked until the transaction ends: the
// order of tickets is that of commits.
func draw(ctx context.Context, tx coordd.Queries, name string) (ticket int64, err error) {
	changed, err := tx.Exec(ctx, stmtTicket, name)
	if err == nil && changed == 0 {
		if _, err = tx.Exec(ctx, stmtBeginQueue, name); err == nil {
			_, err = tx.Exec(ctx, stmtTicket, name)
		}
	}
	if err != nil {
		return 0, err
	}
	err = tx.Get(ctx, []any{&ticket}, stmtNextTicket, name)
	return ticket, err
}

// await looks until it is this place's turn. When ctx ends it returns what was in its way last:
// who held it, or what the database said.
func (k *keeper) await(ctx context.Context, w Want, at place, rings, changes <-chan struct{}) (*Held, error) {
	p := pace{pause: firstPause}
	for last := error(nil); ; {
		st, err := k.read(ctx, w, at)
		if err == nil && !st.placed && k.enqueue(ctx, w, at.id) == nil {
			continue // its place went with a grant that came too late
		}
		if err != nil {
			p.pause, p.idle = min(2*p.pause, farPause), time.Time{}
		} else {
			turn := at
			// Whoever is the first in line could have it, whatever that one wants.
			idle := st.free(w) && st.sharing == 0 && st.history == k.History && st.intact
			if p.look(st, idle, k.DB.Hears()); p.overlooked() {
				turn.patience = 1
			}
			err = st.heldError(w)
			if st.free(w) && st.ahead <= turn.patience {
				var h *Held
				if h, err = k.tryFrom(ctx, w, turn, st); h != nil || !passing(err) {
					return h, err
				}
			}
		}
		if last == nil || ctx.Err() == nil { // what its end has cut short says little
			last = err
		}
		if !p.rest(ctx, rings, changes) {
			return nil, last
		}
	}
}

// pace is how often somebody who waits looks.
type pace struct {
	at    time.Time     // of the latest look
	st    standing      // that it saw
	idle  time.Time     // since when it has seen the right lie there for the first in line, under one token; zero: it does not
	pause time.Duration // until the next look
}

// look takes in how the right stands, for somebody whom a ring of others reaches or not. Who is
// not among the first two and hears nothing looks again after half the time in which it should
// be.
func (p *pace) look(st standing, idle, hears bool) {
	now := time.Now()
	first, moved := p.at.IsZero(), p.st.ahead-st.ahead
	if !idle {
		p.idle = time.Time{}
	} else if p.idle.IsZero() || st.token != p.st.token {
		p.idle = now
	}
	switch {
	case st.ahead < 2 && (st.token != p.st.token || moved != 0):
		p.pause = firstPause
	case st.ahead < 2 && !hears:
		p.pause = min(2*p.pause, nearPause)
	case st.ahead < 2:
		p.pause = min(2*p.pause, farPause)
	case hears || moved <= 0 && !first:
		p.pause = farPause
	case first:
		p.pause = nearPause
	default:
		near := now.Sub(p.at) / time.Duration(moved) * time.Duration(st.ahead-1) // until it is the second
		p.pause = min(max(near/2, firstPause), farPause)
	}
	p.at, p.st = now, st
}

// rest waits until the next look: for a ring that is for this place, or, not too soon after the one before, for
// one that tells of some change, as of the end of a member. It says false when ctx has ended.
func (p *pace) rest(ctx context.Context, rings, changes <-chan struct{}) bool {
	pause, calm := time.NewTimer(p.pause), time.NewTimer(calmPause)
	defer pause.Stop()
	defer calm.Stop()
	var heard <-chan struct{}
	for {
		select {
		case <-calm.C:
			heard = changes
			continue
		case <-pause.C:
		case <-rings:
		case <-heard:
		case <-ctx.Done():
		}
		return ctx.Err() == nil
	}
}

// overlooked says whether the first in line has let the right lie.
func (p *pace) overlooked() bool { return !p.idle.IsZero() && p.at.Sub(p.idle) > overlooked }

func (k *keeper) stand(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.places[id] = struct{}{}
}

func (k *keeper) leave(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.places, id)
}

// forgetPlace gives up a place, and wakes who comes after it.
func (k *keeper) forgetPlace(ctx context.Context, name, id string) error {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	changed, err := k.DB.Exec(ctx, stmtLeaveQueue, id)
	if changed == 1 {
		k.wakeFirst(ctx, name)
	}
	return err
}

// topic is what rings for one who waits.
func topic(id string) string { return "waiter " + id }

// wakeFirst rings for the first in line. It is a hint: whoever is not woken looks a little
// later.
func (k *keeper) wakeFirst(ctx context.Context, name string) {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	var first string
	var ended int
	err := k.DB.Get(ctx, []any{&first, &ended}, stmtFirst, name)
	if err == nil {
		_ = k.DB.Ring(ctx, topic(first))
	}
	if ended > 0 || errors.Is(err, sql.ErrNoRows) {
		_ = deleteEach(ctx, k.DB.Queries, stmtEnded, stmtLeaveQueue, name) // or the next one does
	}
}
