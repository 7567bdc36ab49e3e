package rights

import (
	"context"
	"errors"
	"maps"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/lock"
)

// Put takes a right, or renews it. It fails with [*BusyError], [*ElsewhereError], [*LostError],
// [ErrOther], [ErrNotYours], [ErrFull], [ErrNoSession], [election.ErrUnfit], and the errors of the
// database. When ctx ends, what was waited for is kept as after any other request.
func (d *Desk) Put(ctx context.Context, ask Ask) (Grant, error) {
	if ask.TTL == 0 {
		ask.TTL = DefaultTTL
	}
	patience, cancel := context.WithTimeout(ctx, ask.Wait)
	defer cancel()
	for {
		r, err := d.enter(ask)
		if err != nil {
			return Grant{}, err
		}
		err = r.await(ctx, patience)
		if err == nil {
			err = r.publish(ctx, ask.Value)
		}
		g, err := r.answer(ask, err)
		var held *lock.HeldError
		var elsewhere *ElsewhereError
		switch {
		case errors.Is(err, errGone): // it was being given back when this came
		case errors.Is(err, errQueued):
			return g, r.busy(ctx)
		case !errors.As(err, &held) || errors.As(err, &elsewhere):
			return g, err
		case ask.Wait == 0 || !r.tries:
			return g, &BusyError{Held: held}
		} // or this one waits, and who came before did not
	}
}

// enter finds the right that is asked for, or begins to ask for it. [right.answer] leaves it.
func (d *Desk) enter(ask Ask) (*right, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.rights[ask.Key]
	if r == nil {
		return d.begin(ask)
	}
	switch {
	case !r.belongsTo(ask.By):
		return nil, ErrNotYours
	case r.state == Ends && !r.why.byClient():
		return nil, r.why.lost()
	case ask.Token != 0 && (r.state != Holds || r.held.Token() != ask.Token):
		return nil, &LostError{Why: Lost}
	case r.state == Ends:
	case ask.Shared != r.Shared || ask.Permits != r.Permits || ask.Priority != r.Priority:
		return nil, ErrOther
	default:
		if !r.answered { // or its answer says what it is tied to
			r.tie = ask.Tie
		}
		r.wake()
	}
	r.asking++
	return r, nil
}

// begin begins to ask for a right. It is called with mu held.
func (d *Desk) begin(ask Ask) (*right, error) {
	if ask.Token != 0 {
		return nil, &LostError{Why: Lost}
	}
	s := d.session()
	switch {
	case s == nil:
		return nil, ErrNoSession
	case ask.Kind == Election && s.Draining():
		return nil, election.ErrUnfit
	case len(d.rights) >= d.Most || d.counts[Lock].Waiting+d.counts[Election].Waiting >= d.Waiting:
		return nil, ErrFull
	}
	r := newRight(d, s, ask)
	d.rights[ask.Key] = r
	return r, nil
}

func (r *right) belongsTo(by By) bool { return r.By.Name == by.Name || by.Admin }

// session is the first one that carries rights now, or nil.
func (d *Desk) session() *heartbeat.Session {
	for _, s := range d.Sessions() {
		if s.Valid() {
			return s
		}
	}
	return nil
}

// Get shows a right, and promises nothing. It fails with [coordd.ErrNone].
func (d *Desk) Get(key Key) (Grant, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.rights[key]
	if r == nil {
		return Grant{}, coordd.ErrNone
	}
	return r.show(), nil
}

// Delete gives a right up, or a place in the queue, and waits until that is done. The client must
// have stopped. Where somebody else gives it up, an administrator, it waits until what the
// client was promised has passed. With a token it concerns the right of that token only. It
// fails with [coordd.ErrNone], [*LostError] and [ErrNotYours]. If the database does not answer
// it is told again, and this does not fail.
func (d *Desk) Delete(ctx context.Context, key Key, by By, token int64) error {
	d.mu.Lock()
	r := d.rights[key]
	err := error(nil)
	switch {
	case r == nil:
		err = coordd.ErrNone
	case !r.belongsTo(by):
		err = ErrNotYours
	case token != 0 && (r.held == nil || r.held.Token() != token):
		err = &LostError{Why: Lost}
	case r.By.Name == by.Name:
		r.giveUp(GivenUp)
	default:
		r.end(Requested, &lock.RequestedError{By: by.Name, Reason: "an administrator gave it up"})
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	r.wake()
	select {
	case <-r.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leads says whether a client leads an election by this desk at this instant. It asks the clock
// and nobody else.
func (d *Desk) Leads(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.leads[name]
	return r != nil && r.state == Holds && r.held.Err() == nil
}

// Counts are the numbers of one kind.
func (d *Desk) Counts(kind Kind) Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := *d.counts[kind]
	c.Ended = maps.Clone(c.Ended)
	return c
}
