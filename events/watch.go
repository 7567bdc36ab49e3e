package events

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// page is how many events are read at once.
const page = 500

// watch is one loop over Watch.
type watch struct {
	cfg    Config
	db     *coordd.DB
	topics []string

	position int64 // everything up to here was yielded, or is of other topics
	seen     int64 // the newest revision that the database has shown

	pause    time.Duration // before the next look
	answered bool          // the database has answered once
	failing  bool          // and did not the last time
}

func (w *watch) run(ctx context.Context, yield func(Event, error) bool) {
	rings, stop := w.db.Listen("")
	defer stop()
	for {
		events, err := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && w.final(err):
			yield(Event{}, fmt.Errorf("events after revision %d: %w", w.position, err))
			return
		case err != nil:
			w.failed(err)
		default:
			w.succeeded()
		}
		for _, e := range events {
			if ctx.Err() != nil || !yield(Event(e), nil) {
				return
			}
		}
		if !wait(ctx, w.pause, rings) {
			return
		}
	}
}

// look reads the next events, if there are any, and sets the pause that is to follow.
func (w *watch) look(ctx context.Context) ([]journal.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	now, err := journal.ReadHistory(ctx, w.db.Queries)
	if err != nil {
		return nil, err
	}
	if err := w.see(now); err != nil {
		return nil, err
	}
	if now.Revision <= w.position {
		w.pause = min(max(2*w.pause, w.quick()), w.cfg.Poll)
		return nil, nil
	}
	next, err := journal.Read(ctx, w.db.Queries, w.position, page, w.topics...)
	if err != nil {
		return nil, err
	}
	if err := w.see(next.History); err != nil {
		return nil, err
	}
	w.position, w.pause = next.Next, w.quick()
	if next.Next < next.Revision {
		w.pause = 0
	}
	return next.Events, nil
}

// quick is the pause after a change.
func (w *watch) quick() time.Duration { return w.cfg.Poll / 8 }

// see holds that all is still there that was seen.
func (w *watch) see(now journal.History) error {
	if err := now.Lost(w.seen); err != nil {
		return fmt.Errorf("revision %d was seen: %w", w.seen, err)
	}
	w.seen = max(w.seen, now.Revision)
	return nil
}

// final tells what no waiting mends. A database that has answered once may well come back
// from anything: tables that are being restored, a password that is being changed.
func (w *watch) final(err error) bool {
	if errors.Is(err, ErrCompacted) || errors.Is(err, coordd.ErrHistoryLost) {
		return true
	}
	return !w.answered && (errors.Is(err, coordd.ErrSchema) || errors.Is(err, coordd.ErrNoDatabase) ||
		errors.Is(err, coordd.ErrForbidden) || errors.Is(err, coordd.ErrDenied))
}

// slowest is the longest pause between two tries in an outage.
const slowest = 5 * time.Second

// failed doubles the pause, and spreads it so that not everybody returns at once.
func (w *watch) failed(err error) {
	if !w.failing {
		w.cfg.Logger.Warn("events cannot be read; it is tried again until they can", "after_revision", w.position, "error", err)
		w.pause = w.quick()
	}
	w.failing = true
	w.pause = min(2*w.pause, slowest)
	w.pause = w.pause*3/4 + rand.N(w.pause/2)
}

func (w *watch) succeeded() {
	if w.failing {
		w.cfg.Logger.Info("events can be read again", "after_revision", w.position)
	}
	w.answered, w.failing = true, false
}

// wait pauses for d, or until somebody rings. It says whether ctx goes on.
func wait(ctx context.Context, d time.Duration, rings <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-rings:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
