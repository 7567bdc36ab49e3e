package main

import (
	"context"

	"github.com/coordd/coordd/election"
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
	return election.Dismiss(ctx, d.db, name, actor(), ask.Reason, ask.Within)
}

func (d direct) Transfer(ctx context.Context, name, to string, ask httpapi.Ask) error {
	m, err := d.find(ctx, to)
	if err != nil {
		return err
	}
	return election.Transfer(ctx, d.db, name, m.ID, actor(), ask.Reason, ask.Within)
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
	return lock.ForceRelease(ctx, d.db, name, actor(), ask.Reason, ask.Within)
}
