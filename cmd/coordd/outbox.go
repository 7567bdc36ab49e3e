package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/coordd/coordd/internal/journal"
)

// How often the outbox is looked at. Each look is one statement while there is nothing in it.
const (
	drainPause = time.Second      // between two looks at least, however often it rings
	drainIdle  = time.Second      // and about that much longer while it does not
	drainBound = 30 * time.Second // for a hundred events, over a path that is slow
	drainRetry = 10 * time.Second // between two tries at most, in an outage, give or take a half
)

// drain moves into the log what users' own transactions have put into the outbox, until ctx
// ends. Every daemon does so; what one of them moves the others need not.
func (d *daemon) drain(ctx context.Context) error {
	rings, stop := d.db.Listen("")
	defer stop()
	outage := backoff.NewExponentialBackOff()
	outage.InitialInterval, outage.MaxInterval, outage.Multiplier = 2*drainPause, drainRetry, 2
	failing := false
	for ctx.Err() == nil {
		moved, err := d.empty(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			again := outage.NextBackOff()
			if !failing {
				d.log.Warn("events in the outbox do not reach the log; it is tried again until they do", "error", err, "next_try", again)
			}
			failing = true
			pause(ctx, again, nil)
		default:
			if failing {
				d.log.Info("events in the outbox reach the log again")
			}
			failing = false
			d.loops.did(loopOutbox)
			outage.Reset()
			pause(ctx, drainPause, nil)
			if moved == 0 {
				pause(ctx, drainIdle/2+rand.N(drainIdle), rings) // not everybody at once
			}
		}
	}
	return nil
}

// empty moves what is in the outbox, and rings if that was anything. What comes in
// meanwhile, or is left because others were moving too, is for the next time.
func (d *daemon) empty(ctx context.Context) (moved int, err error) {
	for more := true; more && err == nil; {
		var n int
		bounded, cancel := context.WithTimeout(ctx, drainBound)
		n, err = journal.Drain(bounded, d.db)
		cancel()
		moved += n
		more = n == journal.Batch
	}
	if moved > 0 {
		journal.Ring(ctx, d.db)
	}
	return moved, err
}

// pause waits for d, until somebody rings, or until ctx ends.
func pause(ctx context.Context, d time.Duration, rings <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-rings:
	case <-ctx.Done():
	}
}
