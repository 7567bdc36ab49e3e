package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/render"
)

// demoGroup is the group of --dev.
const demoGroup = "demo"

// lookAfter has a session look after the daemon's groups until ctx ends, and leave. What a daemon
// owns by itself nobody runs here: applications read whose a job is.
func (d *daemon) lookAfter(ctx context.Context, s *heartbeat.Session) {
	serving := context.WithoutCancel(ctx) // the session's end frees everything at one stroke
	var groups sync.WaitGroup
	for _, g := range d.groups {
		groups.Go(func() { d.serveGroup(serving, s, g) })
	}
	<-ctx.Done()
	if d.restartGrace > 0 {
		_ = s.Restart(ctx) // the session says what went wrong, as it ends
	} else if len(d.groups) > 0 {
		_ = s.Leave(ctx)
	}
	groups.Wait()
}

// serveGroup looks after one group until the session is over.
func (d *daemon) serveGroup(ctx context.Context, s *heartbeat.Session, group string) {
	for s.Err() == nil {
		err := d.makeGroup(ctx, group)
		if err == nil {
			for change, failed := range assign.Changes(ctx, s, assign.Config{Group: group, Logger: d.log}) {
				if err = failed; err != nil {
					break
				}
				change.Done()
			}
		}
		if errors.Is(err, heartbeat.ErrLeft) || s.Err() != nil {
			return
		}
		d.log.Warn("a group is not looked after; it is tried again", "group", group, "error", err)
		select {
		case <-time.After(time.Second):
		case <-s.Done():
		}
	}
}

// makeGroup makes a group that is not there.
func (d *daemon) makeGroup(ctx context.Context, group string) error {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	_, err := assign.Find(ctx, d.db, group)
	if !errors.Is(err, assign.ErrNoGroup) {
		return err
	}
	g := assign.Group{Name: group, Options: assign.Options{RestartGrace: d.restartGrace}}
	if d.dev {
		g.Slots, g.Gather = 120, time.Second
	}
	if err := assign.Define(ctx, d.db, g); err != nil || group != demoGroup || !d.dev {
		return err
	}
	var jobs []assign.Spec
	for i := range 30 {
		jobs = append(jobs, assign.Spec{Key: fmt.Sprintf("stream-%02d", i+1)})
	}
	_, err = assign.Add(ctx, d.db, group, jobs...)
	return err
}

// showShares shows how the demo's jobs are shared whenever that has changed.
func (d *daemon) showShares(ctx context.Context) error {
	tick := time.NewTicker(time.Second / 4)
	defer tick.Stop()
	for last := ""; ; {
		shares, err := assign.Shares(ctx, d.db, d.groups[0])
		if now := fmt.Sprint(shares); err == nil && now != last {
			last = now
			fmt.Fprintf(d.out, "\n%s  %s:\n", time.Now().Format(time.TimeOnly), d.groups[0])
			if err := render.Write(d.out, "table", httpapi.Shares(shares), shareColumns); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
