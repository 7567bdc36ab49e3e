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
	"github.com/coordd/coordd/internal/journal"
)

// ErrLeft is what [Session.Err] says after [Session.Leave].
var ErrLeft = errors.New("the session has left")

// Session is a member's liveness, seen from inside its own process. It is safe for
// concurrent use.
type Session struct {
	id      string
	process string
	cfg     Config
	db      *coordd.DB
	lane    *coordd.Lane // carries the beats
	log     *slog.Logger
	now     func() time.Duration

	life  context.Context // ends when the session is lost or left, and says why
	end   context.CancelCauseFunc
	loops sync.WaitGroup
	left  error // of the farewell; read when the loops have ended

	mu         sync.Mutex
	sent       time.Duration // when the latest beat that succeeded was sent,
	acked      time.Duration // and when its answer came
	validUntil time.Duration // when its right runs out
	suspended  bool          // it has run out
	revoked    bool          // it is over for good
	revision   int64         // the newest that was seen
	longest    time.Duration // the longest TTL that a session may have, as far as was seen
	failing    bool          // the latest beat failed
	failed     bool          // one has failed since the previous look
	stalled    time.Duration // the longest time between two answers since the previous look
	leaving    bool          // it beats only until what it held was released
	holds      map[*hold]struct{}
	changed    chan struct{} // closed when the status has changed
	news       chan struct{} // closed when that, or the revision, has
	ending     bool          // nothing new is begun
	farewell   farewell
	stats      Stats

	besideMu sync.Mutex
	beside   map[any]any // what other packages keep here

	draining atomic.Bool
	load     atomic.Value // string: the latest load as JSON

	pace  atomic.Int64  // the time from one beat or look to the next
	hurry chan struct{} // wakes the beat loop when the pace has quickened

	history journal.History // as it was when the session joined

	// Of the look loop alone.
	observer   observer
	quarantine quarantine
	blind      bool // the latest look failed
}

// farewell is how to say goodbye; the zero one says nothing.
type farewell struct{ action, stmt string }

// Join makes this process a member. Its ctx bounds the call and nothing after it; so does
// the TTL, and a timeout and a second in which it beats already. It fails with
// [coordd.ErrInvalid], [coordd.ErrSchema], and the errors of the database; if the database's
// answer was lost, a member that never beats may have been left behind, and others will see
// it dead.
//
// End every session with [Session.Leave], also one that was lost.
func Join(ctx context.Context, db *coordd.DB, cfg Config) (*Session, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	cfg = cfg.withDefaults()
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("join: no randomness for an id: %w", err)
	}
	s := &Session{
		id: id.String(), process: processOf(cfg.Kind), cfg: cfg, db: db, lane: db.Lane(), now: clock.Of(ctx),
		log:     cfg.Logger.With("member", id.String(), "name", cfg.Name),
		hurry:   make(chan struct{}, 1),
		changed: make(chan struct{}),
		news:    make(chan struct{}),
		beside:  map[any]any{},
		holds:   map[*hold]struct{}{},
	}
	s.pace.Store(int64(cfg.Beat))
	if cfg.Load != nil {
		if err := s.takeLoad(); err != nil {
			return nil, fmt.Errorf("join: %w: %w", coordd.ErrInvalid, err)
		}
	}
	s.life, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := s.enter(ctx); err != nil {
		s.end(err)
		s.lane.Close()
		return nil, fmt.Errorf("join as %q: %w", cfg.Name, err)
	}
	s.loops.Go(s.beats)
	s.loops.Go(s.looks)
	s.loops.Go(s.expiry)
	if cfg.Load != nil {
		s.loops.Go(s.loads)
	}
	s.succeed(ctx) // while it beats, as this may take its time
	journal.Ring(ctx, s.db)
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
	return s.barred() == nil
}

// Leave ends the session and says so in the database, so that others need not wait to
// see it dead. First it ends the contexts of all that is held and waits until it was
// released, for a TTL at the most; the session beats meanwhile. It ignores the cancellation
// of ctx, and takes three timeouts and a second beside that wait. A session that is being lost
// at that moment may take two TTLs more, to learn why and to record it for all others.
//
// An error means that others may take this member for alive until they have seen it not
// beating, because they could not be told, or because something was not released and must
// not be taken for free; the session is over all the same.
func (s *Session) Leave(context.Context) error { return s.depart("left", stmtLeave) }

// Restart is Leave for a process that will be back under the same name in a moment. What was
// shared out among members may stay reserved for it.
func (s *Session) Restart(context.Context) error { return s.depart("restarting", stmtRestart) }

func (s *Session) depart(action, stmt string) error {
	s.mu.Lock()
	if !s.leaving {
		s.leaving = true
		s.farewell = farewell{action, stmt}
		s.cut(ErrLeft)
		s.tell()
	}
	s.mu.Unlock()
	still := s.awaitReleases(s.cfg.TTL)
	if still > 0 {
		s.mu.Lock()
		s.farewell = farewell{}
		s.mu.Unlock()
	}
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.end(ErrLeft)
	s.loops.Wait()
	if still > 0 && errors.Is(s.Err(), ErrLeft) {
		return fmt.Errorf("leave as %q: %d held things were not released in %v; others will see it dead in %v", s.cfg.Name, still, s.cfg.TTL, window(s.cfg.TTL))
	}
	return s.left
}

// Stats are numbers to look at from outside.
type Stats struct {
	Beats        int64         // that succeeded
	Failures     int64         // of beats
	LookFailures int64         // of looks at the others, and of declaring one dead
	Latency      time.Duration // of the latest beat that succeeded
	Remaining    time.Duration // until the session is suspended if no beat succeeds; 0 if it is
}

// Stats reads the numbers. It does no I/O.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	if s.life.Err() == nil {
		stats.Remaining = max(0, s.validUntil-s.now())
	}
	return stats
}

// expiry notices the moment at which the right ends. No beat need be answered for that,
// and it looks again every margin, as a timer does not count the time for which the
// machine was suspended.
func (s *Session) expiry() {
	for wait(s.life, s.expire(), nil) {
	}
}

// expire suspends the session if its time has come, and returns when to ask again.
func (s *Session) expire() time.Duration {
	s.mu.Lock()
	remaining := s.validUntil - s.now()
	news := remaining <= 0 && !s.suspended
	s.suspended = s.suspended || news
	if news {
		s.cut(ErrSuspended)
		s.tell()
	}
	s.mu.Unlock()
	if news {
		s.log.Warn("suspended: no beat was answered in time", "ttl", s.cfg.TTL)
	}
	if remaining <= 0 {
		return margin(s.cfg.TTL)
	}
	return min(remaining, margin(s.cfg.TTL))
}

// wait sleeps for d, or until hurry, and says false as soon as ctx has ended.
func wait(ctx context.Context, d time.Duration, hurry <-chan struct{}) bool {
	if ctx.Err() != nil {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-hurry:
		return true
	case <-ctx.Done():
		return false
	}
}
