// Package election elects one of several processes to lead, by the database that they share.
//
//	err := election.Run(ctx, session, election.Config{Name: "scheduler"},
//		func(ctx context.Context, l *election.Leadership) error {
//			return schedule(ctx, l.Term()) // ctx ends with the leadership
//		})
//
// A leadership is a context that ends and a term that grows. The context ends when the
// leadership does: with the session, at the latest when no beat was answered for its TTL, with
// no network and no database. The term fences: [Leadership.InTx] runs a transaction that fails
// if another has been elected since, and whoever would be elected waits for that transaction.
//
// What it promises: two processes never see Valid at one instant, whatever the database's clock
// does, while committed writes survive, reads go to the primary and local clock rates differ
// by at most 1 %. A machine that is frozen in a way that none of its own clocks shows may
// believe for a moment that it leads: guard what must not be written then. A leader that
// crashed is followed within its TTL and a little more than a beat; one that resigns, at once.
//
// An outage of the database elects nobody and deposes nobody: the leader is suspended, and
// leads on in the same term when the database is back.
//
// What it costs: nothing while one leads but the session's beat, and one statement each five
// beats for all that the session holds; some looks a second for the next in line, and one a
// second for everybody else who waits.
package election

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/lease"
	"github.com/coordd/coordd/internal/name"
)

// Config says what to campaign for. Only Name is needed.
type Config struct {
	Name string

	// Value is published with the leadership, for everybody to read: the address of a
	// service, say. At most 64 KiB.
	Value string

	// Client says on whose behalf the member campaigns, for others to see; empty: its own.
	Client string

	// Priority comes before all lower ones among those who wait; it deposes nobody.
	Priority int

	// NoCandidate says, now and then, that this member must not lead; nil: it may. A leader
	// that must not any more resigns. So does one that is asked to drain.
	NoCandidate func() bool

	// Healthy is asked each HealthEvery while this member leads; it resigns when that fails.
	// It must return promptly. Nil: it is not asked.
	Healthy     func() error
	HealthEvery time.Duration // 0 means 2 s

	// Logger hears of terms that begin and end; nil means silence.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.HealthEvery == 0 {
		c.HealthEvery = 2 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate fails with [coordd.ErrInvalid] and says what cannot be. Campaign does it too.
func (c Config) Validate() error { return c.withDefaults().check() }

func (c Config) check() error {
	if err := checkName(c.Name); err != nil {
		return err
	}
	if err := checkValue(c.Name, c.Value); err != nil {
		return err
	}
	if err := name.CheckOptional("client", c.Client); err != nil {
		return fmt.Errorf("election %q: %w: %w", c.Name, coordd.ErrInvalid, err)
	}
	if c.HealthEvery < 10*time.Millisecond {
		return fmt.Errorf("election %q: %w: HealthEvery %v: it must be at least 10ms", c.Name, coordd.ErrInvalid, c.HealthEvery)
	}
	return nil
}

func checkName(s string) error {
	if err := name.Check("election name", s); err != nil {
		return fmt.Errorf("%w: %w", coordd.ErrInvalid, err)
	}
	return nil
}

// checkValue refuses what not every database can keep.
func checkValue(election, value string) error {
	if len(value) > 64<<10 || !utf8.ValidString(value) || strings.Contains(value, "\x00") {
		return fmt.Errorf("election %q: %w: its value must be UTF-8 without a zero byte, and at most 65536 bytes", election, coordd.ErrInvalid)
	}
	return nil
}

// HeldError says who leads, and since when; it is [coordd.ErrHeld].
type HeldError = lease.HeldError

// Topic is the topic of events about elections. Their subject is the election's name;
// their actions are granted, released, published and requested.
const Topic = "election"

// prefix is of elections among the leases.
const prefix = "election/"

func (c Config) want() lease.Want {
	return lease.Want{Name: prefix + c.Name, Priority: int64(c.Priority), Recorded: true, Value: c.Value, Client: c.Client}
}

// Why a leadership ends that its session has not lost. They are causes of its context.
var (
	ErrResigned  = lease.ErrReleased
	ErrRequested = lease.ErrRequested // somebody asked it to resign
	ErrUnfit     = errors.New("this member must not lead")
)

// RequestedError says who asked, and why; it is [ErrRequested].
type RequestedError = lease.RequestedError

// Leadership is one term, or what is left of it. It is safe for concurrent use.
type Leadership struct {
	held *lease.Held
	cfg  Config
}

// Campaign waits until this member is elected. It waits until ctx ends or the session is lost;
// an outage of the database only makes it longer. Its ctx bounds the call and nothing after
// it: end each leadership with Resign. Unlike [Run] it does not take a leadership up again
// that was suspended.
func Campaign(ctx context.Context, s *heartbeat.Session, cfg Config) (*Leadership, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	for {
		if err := cfg.awaitFitness(ctx, s); err != nil {
			return nil, fmt.Errorf("election %q: %w", cfg.Name, err)
		}
		held, err := lease.Acquire(ctx, s, cfg.want())
		if err != nil {
			return nil, fmt.Errorf("election %q: %w", cfg.Name, err)
		}
		if l, err := cfg.elected(ctx, s, held); err == nil {
			return l, nil
		}
	}
}

// Try is Campaign for who does not wait: it fails with a [*HeldError] if somebody leads, or waits
// to, and with [ErrUnfit] if this member must not lead. Its ctx bounds the call and nothing
// after it; so does the TTL.
func Try(ctx context.Context, s *heartbeat.Session, cfg Config) (*Leadership, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	var l *Leadership
	err := cfg.unfit(s)
	if err == nil {
		var held *lease.Held
		if held, err = lease.Try(ctx, s, cfg.want()); err == nil {
			l, err = cfg.elected(ctx, s, held)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("election %q: %w", cfg.Name, err)
	}
	return l, nil
}

// elected is what becomes of a grant: a leadership, unless this member must not lead since it
// began to wait.
func (c Config) elected(ctx context.Context, s *heartbeat.Session, held *lease.Held) (*Leadership, error) {
	l := &Leadership{held, c}
	if err := c.unfit(s); err != nil {
		_ = l.Resign(ctx) // it is told again behind it
		return nil, err
	}
	c.Logger.Info("elected", "election", c.Name, "term", l.Term(), "member", s.ID())
	l.watch(s)
	return l, nil
}

// unfit says why this member must not lead, if so.
func (c Config) unfit(s *heartbeat.Session) error {
	switch {
	case s.Draining():
		return fmt.Errorf("%w: it is draining", ErrUnfit)
	case c.NoCandidate != nil && c.NoCandidate():
		return fmt.Errorf("%w: it is no candidate", ErrUnfit)
	}
	return nil
}

// awaitFitness waits until this member may lead.
func (c Config) awaitFitness(ctx context.Context, s *heartbeat.Session) error {
	for c.unfit(s) != nil {
		timer := time.NewTimer(c.HealthEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-s.Done():
			timer.Stop()
			return s.Err()
		}
	}
	return nil
}

// watch ends the leadership when this member must not lead any more.
func (l *Leadership) watch(s *heartbeat.Session) {
	l.held.Watch(l.cfg.HealthEvery, func() error {
		if err := l.cfg.unfit(s); err != nil {
			return err
		}
		if l.cfg.Healthy == nil {
			return nil
		}
		if err := l.cfg.Healthy(); err != nil {
			return fmt.Errorf("%w: it is not healthy: %w", ErrUnfit, err)
		}
		return nil
	})
}

// Term is the fencing token: greater than that of every leadership of this election before, for
// ever. It is below 2^53.
func (l *Leadership) Term() int64 { return l.held.Token() }

// Context ends when the leadership does. context.Cause says why.
func (l *Leadership) Context() context.Context { return l.held.Context() }

// Done is closed when the leadership has ended.
func (l *Leadership) Done() <-chan struct{} { return l.held.Context().Done() }

// Valid says whether this process leads at this instant. It asks the clock and nobody else.
func (l *Leadership) Valid() bool { return l.held.Valid() }

// Err says why the leadership has ended: it wraps [coordd.ErrLost], or is [ErrResigned]; nil: it
// has not.
func (l *Leadership) Err() error { return l.held.Err() }

// Publish changes the value that goes with the leadership.
func (l *Leadership) Publish(ctx context.Context, value string) error {
	if err := checkValue(l.cfg.Name, value); err != nil {
		return err
	}
	return l.held.Publish(ctx, value)
}

// Resign gives the leadership up. Call it once the work of the leader has returned; further
// calls do nothing. It ignores the cancellation of ctx. An error says that the database did
// not answer: it is told again for as long as the session lives, which ends the leadership
// too.
func (l *Leadership) Resign(ctx context.Context) error {
	if l.held.Valid() {
		l.cfg.Logger.Info("resigned", "election", l.cfg.Name, "term", l.Term())
	}
	return l.held.Release(ctx)
}

// Guard makes a transaction of the caller's fail with [coordd.ErrFenced] unless this is still
// the newest term, and keeps it so until that transaction ends. Call it last, right before the
// commit. It fails with [coordd.ErrLost], and asks nobody, once Valid is false. After any error
// roll the transaction back. [Leadership.InTx] does it right.
func (l *Leadership) Guard(ctx context.Context, on coordd.Querier) error {
	return l.held.Guard(ctx, on)
}

// InTx runs fn in one transaction, guards it, and commits it. It fails with what fn returned;
// with [coordd.ErrFenced] or [coordd.ErrLost], and nothing is written; or with
// [coordd.ErrUnknownOutcome], where it may have been. It runs fn once.
func (l *Leadership) InTx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	return l.held.InTx(ctx, fn)
}

// Fence is Guard as a statement with its arguments, for whoever runs it by other means.
func (l *Leadership) Fence(ctx context.Context) (coordd.Fence, error) { return l.held.Fence(ctx) }
