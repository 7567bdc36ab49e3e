package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/clock"
)

// ErrLeft is what [Session.Err] says after [Session.Leave].
var ErrLeft = errors.New("the session has left")

// Session is a member's liveness, seen from inside its own process. It is safe for
// concurrent use.
type Session struct {
	id   string
	cfg  Config
	db   *coordd.DB
	lane *coordd.Lane // carries the beats
	log  *slog.Logger
	now  func() time.Duration

	life  context.Context // ends when the session is lost or left, and says why
	end   context.CancelCauseFunc
	loops sync.WaitGroup
	left  error // of the farewell; read when the loops have ended

	mu        sync.Mutex
	sent      time.Duration // when the latest beat that succeeded was sent
	suspended bool          // its right has run out
	failing   bool          // its latest beat failed
	stats     Stats

	pace     atomic.Int64 // the time from one beat or look to the next
	observer observer     // of the look loop alone
	excused  int64        // the failed beats that the observer has taken into account
}

// Join makes this process a member. Its ctx bounds the call and nothing after it; so does
// the TTL. It fails with [coordd.ErrInvalid], [coordd.ErrSchema], and the
// errors of the database; if the database's answer was lost, a member that never beats
// may have been left behind, and others will see it dead.
//
// End every session with [Session.Leave], also one that was lost.
func Join(ctx context.Context, db *coordd.DB, cfg Config) (*Session, error) {
	return join(ctx, db, cfg, clock.Now)
}

func join(ctx context.Context, db *coordd.DB, cfg Config, now func() time.Duration) (*Session, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	cfg = cfg.withDefaults()
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("join: no randomness for an id: %w", err)
	}
	s := &Session{
		id: id.String(), cfg: cfg, db: db, lane: db.Lane(), now: now,
		log: cfg.Logger.With("member", id.String(), "name", cfg.Name),
	}
	s.pace.Store(int64(cfg.Beat))
	s.life, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := s.enter(ctx); err != nil {
		s.end(err)
		return nil, fmt.Errorf("join as %q: %w", cfg.Name, err)
	}
	s.loops.Go(s.beats)
	s.loops.Go(s.looks)
	s.loops.Go(s.expiry)
	s.log.Info("joined", "ttl", cfg.TTL)
	return s, nil
}

// ID is this incarnation's own: a UUIDv7.
func (s *Session) ID() string { return s.id }

// Name is the member's name.
func (s *Session) Name() string { return s.cfg.Name }

// Done is closed when the session is lost or left.
func (s *Session) Done() <-chan struct{} { return s.life.Done() }

// Err says why the session is done: it wraps [coordd.ErrLost], or is [ErrLeft]. It is nil
// before.
func (s *Session) Err() error { return context.Cause(s.life) }

// Valid says whether the session carries rights at this instant. It asks the clock and
// nobody else: a session that has not been answered for its TTL is not valid, also with
// no network and no database.
func (s *Session) Valid() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life.Err() == nil && s.now() < s.deadline()
}

// deadline is when the right of the latest beat ends. It is called with mu held.
func (s *Session) deadline() time.Duration { return s.sent + right(s.cfg.TTL) }

// Leave ends the session and says so in the database, so that others need not wait to
// see it dead. It ignores the cancellation of ctx and takes two timeouts at most. An
// error means that others may take this member for alive until they have seen it not
// beating; the session is over all the same.
func (s *Session) Leave(context.Context) error {
	s.end(ErrLeft)
	s.loops.Wait()
	return s.left
}

// Stats are numbers to look at from outside.
type Stats struct {
	Beats     int64         // that succeeded
	Failures  int64         // of beats
	Latency   time.Duration // of the latest beat that succeeded
	Remaining time.Duration // until the session is suspended if no beat succeeds; 0 if it is
}

// Stats reads the numbers. It does no I/O.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	if s.life.Err() == nil {
		stats.Remaining = max(0, s.deadline()-s.now())
	}
	return stats
}

// expiry notices the moment at which the right ends. No beat need be answered for that,
// and it looks again every margin, as a timer does not count the time for which the
// machine was suspended.
func (s *Session) expiry() {
	for wait(s.life, s.expire()) {
	}
}

// expire suspends the session if its time has come, and returns when to ask again.
func (s *Session) expire() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	remaining := s.deadline() - s.now()
	if remaining <= 0 {
		if !s.suspended {
			s.suspended = true
			s.log.Warn("suspended: no beat was answered in time", "ttl", s.cfg.TTL)
		}
		return margin(s.cfg.TTL)
	}
	return min(remaining, margin(s.cfg.TTL))
}

// wait sleeps for d, and says false as soon as ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
