package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
)

// campaigns are those of each member.
func (cfg runConfig) campaigns() (all []election.Config) {
	for _, name := range cfg.elect {
		all = append(all, election.Config{Name: name, Value: cfg.member.Address, Logger: cfg.member.Logger})
	}
	return all
}

// checkElections refuses names that cannot be, or that are said twice.
func (cfg runConfig) checkElections() error {
	if cfg.elect != nil && len(cfg.elect) == 0 { // an empty one is none to a list of flags
		return usageError{errors.New("--elect needs the name of an election")}
	}
	for i, e := range cfg.campaigns() {
		if err := e.Validate(); err != nil {
			return err
		}
		if slices.Contains(cfg.elect[:i], e.Name) {
			return usageError{fmt.Errorf("--elect %s is said twice", e.Name)}
		}
	}
	return nil
}

// campaign has a session campaign until ctx ends, or the session is over.
func (d *daemon) campaign(ctx context.Context, s *heartbeat.Session, cfg election.Config) {
	for {
		err := election.Run(ctx, s, cfg, func(ctx context.Context, l *election.Leadership) error {
			d.lead(ctx, leads{cfg.Name, l})
			return nil
		})
		if ctx.Err() != nil || s.Err() != nil {
			return
		}
		d.log.Warn("a member is no candidate; it is tried again", "election", cfg.Name, "member", s.ID(), "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// leads is a leadership of the daemon's own.
type leads struct {
	election string
	*election.Leadership
}

// lead leads until ctx ends. The work is others': they ask /role/leader.
func (d *daemon) lead(ctx context.Context, l leads) {
	d.mu.Lock()
	d.leads = append(d.leads, l)
	d.mu.Unlock()
	<-ctx.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leads = slices.DeleteFunc(d.leads, func(other leads) bool { return other == l })
}

// leading says whether a member of this process leads an election at this instant. It asks the clock and
// nobody else.
func (d *daemon) leading(election string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.leads, func(l leads) bool { return l.election == election && l.Valid() })
}
