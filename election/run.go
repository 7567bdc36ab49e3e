package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
)

// Run campaigns, runs fn while this member leads, and campaigns again when the leadership has
// ended. The context that fn is given ends with ctx and with the leadership; nobody else is
// elected before fn has returned, or the session has ended.
//
// A leadership that was suspended is taken up again in the same term, if the session is
// connected again and fn has returned: fn is run once more.
//
// It returns nil when ctx has ended; what fn returned while it still led, after it has
// resigned; and [coordd.ErrLost] when the session is lost.
func Run(ctx context.Context, s *heartbeat.Session, cfg Config, fn func(ctx context.Context, l *Leadership) error) error {
	for {
		l, err := Campaign(ctx, s, cfg)
		for err == nil && l != nil {
			var done bool
			if done, err = l.serve(ctx, s, fn); done || err != nil {
				return end(ctx, err)
			}
			l, err = l.resume(ctx, s)
		}
		if err != nil {
			return end(ctx, err)
		}
	}
}

// end is what Run returns.
func end(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, coordd.ErrLost) {
		return nil
	}
	return err
}

// serve runs fn once. It is done if ctx has ended, or fn returned while it still led.
func (l *Leadership) serve(ctx context.Context, s *heartbeat.Session, fn func(ctx context.Context, l *Leadership) error) (done bool, err error) {
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(l.Context(), func() { cancel(context.Cause(l.Context())) })
	defer stop()
	returned := false
	defer func() {
		if !returned {
			_ = l.held.Release(ctx) // fn panics
		}
	}()
	err = fn(work, l)
	returned = true
	why := l.Err()
	if why == nil {
		if told := l.Resign(ctx); told != nil {
			l.cfg.Logger.Warn("the database does not know of a resignation; it is told again", "election", l.cfg.Name, "error", told)
		}
		return true, err
	}
	l.cfg.Logger.Info("leads no more", "election", l.cfg.Name, "term", l.Term(), "reason", why)
	if err != nil && ctx.Err() == nil {
		l.cfg.Logger.Info("the work of a leadership that had ended returned", "election", l.cfg.Name, "error", err)
	}
	return ctx.Err() != nil, l.release(ctx, s)
}

// release gives up what was not lost with the session, and says if the session is.
func (l *Leadership) release(ctx context.Context, s *heartbeat.Session) error {
	cause := context.Cause(l.Context()) // nil: the clock has ended it, and nobody has seen that yet
	suspended := cause == nil || errors.Is(cause, heartbeat.ErrSuspended)
	switch {
	case s.Err() != nil:
		_ = l.held.Release(ctx) // the session's end has freed it
		return fmt.Errorf("election %q: %w", l.cfg.Name, s.Err())
	case ctx.Err() != nil || !suspended:
		_ = l.held.Release(ctx) // it is told again behind it
	}
	return nil
}

// resume takes the term up again once the session is connected again. It returns nothing if
// there is nothing to take up.
func (l *Leadership) resume(ctx context.Context, s *heartbeat.Session) (*Leadership, error) {
	for connected(ctx, s) {
		again, ok, err := l.held.Resume(ctx)
		switch {
		case ok:
			l = &Leadership{again, l.cfg}
			l.cfg.Logger.Info("leads again", "election", l.cfg.Name, "term", l.Term())
			l.watch(s)
			return l, nil
		case err == nil: // another holds it, or it was asked for
			_ = l.held.Release(ctx) // it is told again behind it
			return nil, nil
		}
		l.cfg.Logger.Debug("a term is not taken up yet", "election", l.cfg.Name, "term", l.Term(), "error", err)
		rest(ctx, s)
	}
	_ = l.held.Release(ctx)
	return nil, errors.Join(ctx.Err(), s.Err())
}

// connected waits until the session is connected, and says false if it is over or ctx has ended.
func connected(ctx context.Context, s *heartbeat.Session) bool {
	for status := range s.States(ctx) {
		if status == heartbeat.Connected {
			return ctx.Err() == nil
		}
	}
	return false
}

// rest is the pause between two tries.
func rest(ctx context.Context, s *heartbeat.Session) {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.Done():
	}
}
