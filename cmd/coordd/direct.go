package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/user"
	"slices"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/client"
	"github.com/coordd/coordd/internal/doctor"
	"github.com/coordd/coordd/internal/journal"
)

// direct is a source that is the database itself. What it says is what a daemon would say.
type direct struct {
	db *coordd.DB
	at *sourceFlags
}

func (d direct) Members(ctx context.Context, f httpapi.Filter) ([]httpapi.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	members, err := heartbeat.Members(ctx, d.db)
	return httpapi.Members(f.Of(members)), err
}

func (d direct) find(ctx context.Context, which string) (heartbeat.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	members, err := heartbeat.Members(ctx, d.db)
	if err != nil {
		return heartbeat.Member{}, err
	}
	m, err := httpapi.Find(members, which)
	if p := new(httpapi.Problem); errors.As(err, &p) && errors.Is(err, coordd.ErrNone) {
		p.Title, p.Hint = "there is no such member", "`coordd members` has those that are known"
	}
	return m, err
}

func (d direct) Member(ctx context.Context, which string) (httpapi.Member, error) {
	m, err := d.find(ctx, which)
	return httpapi.Members([]heartbeat.Member{m})[0], err
}

type operation func(ctx context.Context, db *coordd.DB, id string, by ...heartbeat.By) error

func (d direct) Drain(ctx context.Context, which, reason string) (httpapi.Member, error) {
	return d.operate(ctx, which, reason, heartbeat.Drain, heartbeat.Draining)
}

func (d direct) Undrain(ctx context.Context, which, reason string) (httpapi.Member, error) {
	return d.operate(ctx, which, reason, heartbeat.Undrain, heartbeat.Alive)
}

func (d direct) Forget(ctx context.Context, which, reason string) (httpapi.Member, error) {
	return d.operate(ctx, which, reason, heartbeat.Forget, heartbeat.Condemned, heartbeat.Dead)
}

// operate does an operation once: on a member that is in a state to which it leads it does
// nothing.
func (d direct) operate(ctx context.Context, which, reason string, do operation, done ...heartbeat.State) (httpapi.Member, error) {
	m, err := d.find(ctx, which)
	if err != nil {
		return httpapi.Member{}, err
	}
	if !slices.Contains(done, m.State) {
		err = do(ctx, d.db, m.ID, onBehalf(reason))
		switch {
		case errors.Is(err, coordd.ErrNone):
			return httpapi.Member{}, fmt.Errorf("%w: it is %s", err, m.State)
		case err != nil:
			return httpapi.Member{}, err
		}
		m.State = done[0]
	}
	return httpapi.Members([]heartbeat.Member{m})[0], nil
}

// onBehalf is who asks, for the record.
func onBehalf(reason string) heartbeat.By {
	return heartbeat.By{Actor: actor(), Via: "command line", Reason: reason}
}

// actor is who sits at the command line.
func actor() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

func (d direct) Events(ctx context.Context, q client.Query) (httpapi.EventPage, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	page, err := journal.Read(ctx, d.db.Queries, max(q.After, 0), q.Limit, q.Topic...)
	for q.After < 0 && errors.Is(err, events.ErrCompacted) { // and again if they are being deleted
		page, err = journal.Read(ctx, d.db.Queries, page.Compacted, q.Limit, q.Topic...)
	}
	shown := httpapi.EventPage{Events: []httpapi.Event{}, Next: page.Next}
	for _, e := range page.Events {
		shown.Events = append(shown.Events, httpapi.ShowEvent(events.Event(e)))
	}
	return shown, err
}

func (d direct) Watch(ctx context.Context, from int64, topics ...string) iter.Seq2[httpapi.Event, error] {
	return func(yield func(httpapi.Event, error) bool) {
		if from < 0 {
			var err error
			if from, err = events.Revision(ctx, d.db); err != nil {
				yield(httpapi.Event{}, err)
				return
			}
		}
		for e, err := range events.Watch(ctx, d.db, from, topics...) {
			if !yield(httpapi.ShowEvent(e), err) {
				return
			}
		}
	}
}

func (d direct) Status(ctx context.Context) (httpapi.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	database, err := httpapi.ReadDatabase(ctx, d.db)
	return httpapi.Status{Version: release(), Sessions: []httpapi.Session{}, Loops: []httpapi.Loop{}, Database: database}, err
}

func (d direct) Doctor(ctx context.Context) ([]httpapi.Finding, error) {
	target, err := d.at.target()
	if err != nil {
		return nil, err
	}
	return showFindings(doctor.Examine(ctx, target, doctor.Config{})), nil
}

// showFindings are findings as a daemon tells them.
func showFindings(found []doctor.Finding) []httpapi.Finding {
	shown := make([]httpapi.Finding, 0, len(found))
	for _, f := range found {
		shown = append(shown, httpapi.Finding{Name: f.Name, Verdict: string(f.Verdict), Found: f.Found, Fix: f.Fix})
	}
	return shown
}
