package rights

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/lease"
	"github.com/coordd/coordd/lock"
)

// held is a right as the session has it.
type held interface {
	Context() context.Context
	Token() int64
	Err() error
	Release(context.Context) error
}

// leadership is a held one.
type leadership struct{ *election.Leadership }

func (l leadership) Token() int64                      { return l.Term() }
func (l leadership) Release(ctx context.Context) error { return l.Resign(ctx) }

// take has the session take it, or says why it has not.
func (r *right) take(ctx context.Context) {
	h, err := r.try(ctx)
	var elsewhere *ElsewhereError
	if err != nil && !r.tries && !errors.As(err, &elsewhere) {
		h, err = r.acquire(lease.OnQueued(ctx, sync.OnceFunc(func() { close(r.queued) })))
	}
	d := r.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil, r.failed != nil: // the session's end was faster
	case r.seam.Life.Err() != nil:
		r.failed = ErrNoSession
	case r.state == Ends: // its client has given it up
		r.failed = r.why.lost()
	case errors.Is(err, heartbeat.ErrLeft): // its session is leaving
		r.failed = ErrNoSession
	default:
		r.failed = err
	}
	if err != nil {
		return
	}
	r.held = h
	d.counts[r.Kind].Granted++
	if r.state == Waits { // its client still wants it
		r.become(Holds)
		if r.Kind == Election {
			d.leads[r.Name] = r
		}
	}
	close(r.had)
}

// try takes it if it can be had at once.
func (r *right) try(ctx context.Context) (h held, err error) {
	if r.Shared || r.Permits > 0 {
		err = r.elsewhere(ctx)
	}
	if err != nil {
		return nil, err
	}
	if r.Kind == Election {
		l, err := election.Try(ctx, r.session, r.campaign())
		return leadership{l}, r.atHome(err)
	}
	h, err = lock.Try(ctx, r.session, r.request())
	return h, r.atHome(err)
}

// acquire waits for its turn.
func (r *right) acquire(ctx context.Context) (held, error) {
	if r.Kind == Election {
		l, err := election.Campaign(ctx, r.session, r.campaign())
		return leadership{l}, err
	}
	return lock.Acquire(ctx, r.session, r.request())
}

func (r *right) campaign() election.Config {
	return election.Config{Name: r.Name, Client: r.Client, Priority: r.Priority, Value: r.value, Logger: r.desk.Logger}
}

func (r *right) request() lock.Request {
	q := lock.Exclusive(r.Name)
	switch {
	case r.Permits > 0:
		q = lock.Semaphore(r.Name, r.Permits)
	case r.Shared:
		q = lock.Shared(r.Name)
	}
	return q.For(r.Client)
}

// atHome says so if the one who holds it is the client itself, by another daemon.
func (r *right) atHome(err error) error {
	var held *lock.HeldError
	if errors.As(err, &held) && held.Client == r.Client && held.Holder != r.session.ID() {
		return &ElsewhereError{held}
	}
	return err
}

// elsewhere looks whether the client is among those who share it by another daemon.
func (r *right) elsewhere(ctx context.Context) error {
	info, err := lock.Inspect(ctx, r.seam.DB, r.Name)
	for _, h := range info.Holders {
		if h.Client == r.Client && h.MemberID != r.session.ID() {
			return &ElsewhereError{heldBy(r.Name, h)}
		}
	}
	return err
}

func heldBy(name string, h lock.Holder) *lock.HeldError {
	return &lock.HeldError{Name: name, Holder: h.MemberID, Member: h.Name, Address: h.Address, Client: h.Client, Since: h.Since, Token: h.Token}
}

// await waits until it is held, or there is no patience any more.
func (r *right) await(ctx, patience context.Context) error {
	if r.ending() {
		select {
		case <-r.gone:
			return errGone
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-r.had:
	case <-r.gone:
	case <-patience.Done():
		select { // to have a place takes a moment
		case <-r.had:
		case <-r.gone:
		case <-r.queued:
		case <-ctx.Done():
		case <-time.After(r.seam.TTL): // the database does not answer; it is asked on
			return context.DeadlineExceeded
		}
	}
	switch { // several may be true
	case closed(r.gone):
		return r.failed
	case closed(r.had):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errQueued
}

func (r *right) ending() bool {
	r.desk.mu.Lock()
	defer r.desk.mu.Unlock()
	return r.state == Ends
}

// publish changes the value that goes with a leadership.
func (r *right) publish(ctx context.Context, value *string) error {
	r.desk.mu.Lock()
	l, leads := r.held.(leadership)
	same := value == nil || *value == r.value
	r.desk.mu.Unlock()
	if !leads || same {
		return nil
	}
	if err := l.Publish(ctx, *value); err != nil {
		if l.Err() != nil {
			err = nil // which the answer tells
		}
		return err
	}
	r.desk.mu.Lock()
	defer r.desk.mu.Unlock()
	r.value = *value
	return nil
}

// answer ends a request. If it has gone well, it renews the right.
func (r *right) answer(ask Ask, err error) (Grant, error) {
	d := r.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	defer r.wake()
	now := d.Now()
	r.asking--
	r.expires = max(r.expires, now+ask.TTL)
	if err != nil {
		return Grant{}, err
	}
	left := min(ask.TTL, r.session.Stats().Remaining)
	r.lose(r.held.Err())
	if r.state != Holds {
		return Grant{}, r.why.lost()
	}
	if r.answered {
		d.counts[r.Kind].Renewed++
		if ask.Tie != r.tie { // nobody can tell which connection is the newer one: either may be given up
			ask.Tie = nil
		}
	}
	r.answered, r.tie = true, ask.Tie
	r.promised = max(r.promised, now+left)
	r.TTL = ask.TTL
	g := r.show()
	g.Valid = valid(left)
	return g, nil
}

// show is called with mu held.
func (r *right) show() Grant {
	g := Grant{
		Key: r.Key, State: r.state, TTL: r.TTL, Shared: r.Shared, Permits: r.Permits, Priority: r.Priority, Value: r.value,
		Member: r.session.ID(), Tied: r.tie != nil,
	}
	if r.held != nil {
		g.Token = r.held.Token()
	}
	return g
}

// busy says who has what is waited for.
func (r *right) busy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.seam.TTL)
	defer cancel()
	held := &lock.HeldError{Name: r.Name}
	if r.Kind == Election {
		info, err := election.Inspect(ctx, r.seam.DB, r.Name)
		if err != nil {
			return err
		}
		if l := info.Leader; l != nil {
			held.Holder, held.Member, held.Address, held.Client, held.Since, held.Token = l.MemberID, l.Name, l.Address, l.Client, l.Since, l.Term
		}
		return &BusyError{held, true}
	}
	info, err := lock.Inspect(ctx, r.seam.DB, r.Name)
	if err != nil {
		return err
	}
	for _, h := range info.Holders {
		if h.Shared {
			held.Sharing++
		} else {
			held = heldBy(r.Name, h)
		}
	}
	return &BusyError{held, true}
}
