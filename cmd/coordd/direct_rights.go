package main

import (
	"context"

	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/lock"
)

func (d direct) Elections(ctx context.Context) ([]httpapi.Election, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	all, err := election.List(ctx, d.db)
	shown := []httpapi.Election{}
	for _, e := range all {
		shown = append(shown, httpapi.ShowElection(e))
	}
	return shown, err
}

func (d direct) Election(ctx context.Context, name string) (httpapi.Election, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	e, err := election.Inspect(ctx, d.db, name)
	return httpapi.ShowElection(e), err
}

func (d direct) Resign(ctx context.Context, name string, ask httpapi.Ask) error {
	return election.Request(ctx, d.db, order(name, ask))
}

// order is what is asked of who holds something, and on whose behalf.
func order(name string, ask httpapi.Ask) election.Ask {
	by := onBehalf(ask.Reason)
	return election.Ask{Name: name, By: by.Actor, Reason: ask.Reason, Within: ask.Within, Audit: []heartbeat.By{by}}
}

func (d direct) Transfer(ctx context.Context, name, to string, ask httpapi.Ask) error {
	m, err := d.find(ctx, to)
	if err != nil {
		return err
	}
	transfer := order(name, ask)
	transfer.To = m.ID
	return election.Request(ctx, d.db, transfer)
}

func (d direct) Locks(ctx context.Context) ([]httpapi.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	all, err := lock.List(ctx, d.db)
	shown := []httpapi.Lock{}
	for _, l := range all {
		shown = append(shown, httpapi.ShowLock(l))
	}
	return shown, err
}

func (d direct) Lock(ctx context.Context, name string) (httpapi.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	l, err := lock.Inspect(ctx, d.db, name)
	return httpapi.ShowLock(l), err
}

func (d direct) ReleaseLock(ctx context.Context, name string, ask httpapi.Ask) error {
	return lock.RequestRelease(ctx, d.db, order(name, ask))
}
