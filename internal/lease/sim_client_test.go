package lease_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/lease"
)

// elected is the lease of the one election.
const elected = "election/boss"

// names are what is contended for, and limits how many may have it together.
var (
	names  = []string{"lock/alone", "lock/read", "lock/pair", elected}
	limits = map[string]int{"lock/read": lease.Unlimited, "lock/pair": 2}
)

// client is one goroutine of a member that takes rights.
type client struct {
	*member
	r *rand.Rand
}

// right is a *lease.Held or an *election.Leadership.
type right interface {
	Context() context.Context
	Valid() bool
	Err() error
	Fence(ctx context.Context) (coordd.Fence, error)
	InTx(ctx context.Context, fn func(tx *sql.Tx) error) error
}

func (c *client) note(what string, args ...any) {
	c.machine.w.sim.Note(c.machine.host.Name, what, args...)
}
func (c *client) saw(what string) { c.machine.w.ledger.saw(what) }
func (c *client) quiet() bool     { return c.machine.w.sim.Since() >= chaos }

// pause waits, and says false when this client is to end.
func (c *client) pause(d time.Duration) bool { return until(c.ctx, d) && c.Err() == nil }

// ends says whether this client's session ends, of which somebody was told that it has.
func (c *client) ends() bool {
	select {
	case <-c.Done():
	case <-c.ctx.Done():
	case <-time.After(c.machine.ttl):
		return false
	}
	return true
}

// until waits for d, and says false as soon as ctx has ended.
func until(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// lock takes one right after the other; in the quiet time one more.
func (c *client) lock() {
	for c.pause(upTo(c.r, 0.5)) {
		last := c.quiet()
		if h := c.take(last); h != nil {
			c.hold(h, last)
			if last {
				c.done.Add(1)
				return
			}
		}
	}
}

// take asks for a right, now or in its turn, with and without patience.
func (c *client) take(last bool) *lease.Held {
	want := lease.Want{Name: names[c.r.IntN(3)]}
	if c.r.IntN(4) > 0 {
		want.Limit = limits[want.Name]
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	take := lease.Acquire
	if !last {
		switch c.r.IntN(4) {
		case 0:
			take = lease.Try
		case 1:
			ctx, cancel = context.WithTimeout(ctx, upTo(c.r, 1))
			defer cancel()
		}
	}
	c.machine.host.Stand()
	c.note("asks for %s, limit %d", want.Name, want.Limit)
	h, err := take(ctx, c.Session, want)
	if err != nil {
		c.note("has not got %s: %v", want.Name, err)
		if c.ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			c.saw(sawGiveUp)
		}
		return nil
	}
	c.machine.w.ledger.handedOut(c.member, h, h.Name(), h.Token(), want.Limit > 0)
	return h
}

// hold works under a right and gives it back. One that was suspended may be taken up again; so it
// is tried with one whose release was not answered.
func (c *client) hold(h *lease.Held, last bool) {
	for h != nil {
		c.work(c.ctx, h, last)
		h = c.giveBack(h)
	}
}

func (c *client) giveBack(h *lease.Held) (again *lease.Held) {
	if cause := context.Cause(h.Context()); errors.Is(cause, lease.ErrRequested) {
		c.saw(sawRequest)
	} else if errors.Is(cause, heartbeat.ErrSuspended) && c.r.IntN(4) > 0 {
		if again = c.resume(h); again != nil {
			c.saw(sawResumed)
			return again
		}
	}
	c.machine.host.Stand()
	err := h.Release(c.ctx)
	if c.r.IntN(4) == 0 {
		c.write(h)
	}
	if err == nil {
		return nil
	}
	c.note("%v", err)
	return c.resume(h)
}

// resume takes a right up again if the session is connected again.
func (c *client) resume(h *lease.Held) *lease.Held {
	for status := range c.States(c.ctx) {
		if status != heartbeat.Connected {
			continue
		}
		again, ok, err := h.Resume(c.ctx)
		c.note("takes %s up again: %v, %v", h.Name(), ok, err)
		if !ok {
			break
		}
		c.machine.w.ledger.handedOut(c.member, again, again.Name(), again.Token(), false)
		return again
	}
	return nil
}

// work writes now and then under a right, until that or ctx has ended, or its time is over; and
// sometimes afterwards, as who has not noticed.
func (c *client) work(ctx context.Context, h right, short bool) {
	end := c.machine.w.sim.Since() + upTo(c.r, 0.8)
	if short {
		end = c.machine.w.sim.Since() + upTo(c.r, 0.1)
	}
	for ctx.Err() == nil && c.machine.w.sim.Since() < end && until(h.Context(), upTo(c.r, 0.3)) {
		c.machine.host.Stand()
		if c.r.IntN(2) == 0 {
			c.write(h)
		}
	}
	for h.Err() != nil && c.r.IntN(4) > 0 && until(c.ctx, upTo(c.r, 1)) {
		c.write(h)
	}
}

const insertWork = `insert into sim_work (lease, token) values (?, ?)`

// write writes something in a guarded transaction, in the one or the other way.
func (c *client) write(h right) {
	ctx, cancel := context.WithTimeout(c.ctx, c.machine.ttl/4)
	defer cancel()
	name, token := nameOf(h)
	write := func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, insertWork, name, token)
		return err
	}
	var err error
	if h.Err() == nil && c.r.IntN(2) == 0 {
		err = h.InTx(ctx, write)
	} else {
		err = c.writeByHand(ctx, h, write)
	}
	if errors.Is(err, coordd.ErrFenced) {
		c.saw(sawFence)
	}
	if err != nil {
		c.note("has not written under %s %d: %v", name, token, err)
	}
}

// writeByHand is as others do it who have the fence in their own words, and do not ask whether
// the right is valid.
func (c *client) writeByHand(ctx context.Context, h right, write func(tx *sql.Tx) error) error {
	fence, err := h.Fence(ctx)
	if err != nil {
		return err
	}
	tx, err := c.process.DB.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := write(tx); err != nil {
		return err
	}
	var bound string
	if err := tx.QueryRowContext(ctx, fence.Query, fence.Args...).Scan(&bound); errors.Is(err, sql.ErrNoRows) {
		return coordd.ErrFenced
	} else if err != nil {
		return err
	}
	return tx.Commit()
}

func nameOf(h right) (name string, token int64) {
	if l, ok := h.(*election.Leadership); ok {
		return elected, l.Term()
	}
	held := h.(*lease.Held)
	return held.Name(), held.Token()
}

// campaign takes part in the election until its member ends.
func (c *client) campaign() {
	cfg := election.Config{Name: "boss", Priority: c.r.IntN(2), HealthEvery: 200 * time.Millisecond}
	resigned := errors.New("resigned")
	for c.pause(upTo(c.r, 0.5)) {
		var term int64
		err := election.Run(c.ctx, c.Session, cfg, func(ctx context.Context, l *election.Leadership) error {
			if l.Term() == term {
				c.saw(sawTerm)
			}
			term = l.Term()
			c.machine.w.ledger.handedOut(c.member, l, elected, l.Term(), false)
			for range 1 + c.r.IntN(4) {
				c.work(ctx, l, false)
			}
			if c.quiet() {
				<-ctx.Done()
			}
			switch cause := context.Cause(ctx); {
			case errors.Is(cause, election.ErrRequested):
				c.saw(sawRequest)
			case cause == nil && c.r.IntN(3) == 0:
				l.Resign(ctx) // early, and Run does it once more
			}
			return resigned
		})
		c.note("election: %v", err)
		switch {
		case err == nil, errors.Is(err, resigned), errors.Is(err, heartbeat.ErrLeft):
		case errors.Is(err, coordd.ErrLost) && c.ends():
		default:
			c.machine.w.sim.Violated("%s is a candidate no more, and its session lives: %v", tail(c.ID()), err)
		}
	}
}
