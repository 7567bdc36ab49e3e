package heartbeat

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/coordd/coordd"
)

// Run joins, runs fn as a member, and leaves when fn has returned. The context that fn is
// given ends with ctx and with the session. If the session was lost, Run waits until fn
// has returned, joins again as a new incarnation, and runs fn again.
//
// It returns the error of the first Join, so that what is wrong from the start is told at
// once; after that it tries to join until it succeeds or ctx ends. Otherwise it returns
// what fn returned, or nil if ctx has ended.
func Run(ctx context.Context, db *coordd.DB, cfg Config, fn func(ctx context.Context, s *Session) error) error {
	s, err := Join(ctx, db, cfg)
	pause := backoff.NewExponentialBackOff()
	for err == nil {
		var lost bool
		began := time.Now()
		lost, err = s.serve(ctx, fn)
		if !lost || ctx.Err() != nil {
			break
		}
		if time.Since(began) > s.cfg.TTL {
			pause.Reset()
		} else {
			wait(ctx, pause.NextBackOff(), nil) // one that is lost as soon as it has joined must not storm
		}
		s, err = joinAgain(ctx, db, cfg)
	}
	if ctx.Err() != nil {
		err = nil // it ended as it should
	}
	return err
}

// serve runs fn for as long as the session lives, and leaves. A session that is lost only
// after fn has returned is not lost to fn.
func (s *Session) serve(ctx context.Context, fn func(ctx context.Context, s *Session) error) (lost bool, err error) {
	defer func() {
		if err := s.Leave(ctx); err != nil {
			s.log.Warn("the database does not know that this member has left", "error", err)
		}
	}()
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.life, func() { cancel(s.Err()) })
	defer stop()
	err = fn(work, s)
	lost = errors.Is(s.Err(), coordd.ErrLost)
	if lost && err != nil {
		s.log.Info("the work of a lost session has ended", "error", err)
	}
	return lost, err
}

func joinAgain(ctx context.Context, db *coordd.DB, cfg Config) (*Session, error) {
	cfg = cfg.withDefaults()
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = cfg.TTL
	return backoff.Retry(ctx, func() (*Session, error) { return Join(ctx, db, cfg) },
		backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, d time.Duration) {
			cfg.Logger.Warn("joining again failed", "name", cfg.Name, "error", err, "next_try", d)
		}))
}
