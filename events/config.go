package events

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/coordd/coordd"
)

// Config says how to watch. Nothing in it is needed.
type Config struct {
	// Poll is the longest pause between two looks at a database that answers; 0 means 1 s. After a
	// change the pauses are an eighth of that at first, as changes come in flocks.
	Poll time.Duration

	// Timeout ends a statement that was not answered; 0 means 5 s. It is tried again.
	Timeout time.Duration

	// Logger hears when the database stops answering and when it answers again; nil means
	// silence.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// least is the shortest time that makes sense to ask a database for.
const least = 10 * time.Millisecond

func (c Config) check(from int64) error {
	switch {
	case c.Poll < least:
		return fmt.Errorf("%w: poll %v: it must be at least %v", coordd.ErrInvalid, c.Poll, least)
	case c.Timeout < least:
		return fmt.Errorf("%w: timeout %v: it must be at least %v", coordd.ErrInvalid, c.Timeout, least)
	case from < 0:
		return fmt.Errorf("%w: revision %d: it must not be negative", coordd.ErrInvalid, from)
	}
	return nil
}

// Watch is [Config.Watch] with the defaults.
func Watch(ctx context.Context, db *coordd.DB, from int64, topics ...string) iter.Seq2[Event, error] {
	return Config{}.Watch(ctx, db, from, topics...)
}

// Watch yields every event after revision from, of the given topics or of all, each once and
// in order, and waits for more until ctx ends or its caller has had enough:
//
//	for event, err := range events.Watch(ctx, db, last, "member") {
//		if err != nil {
//			return err
//		}
//		last = event.Revision
//	}
//
// From 0 it begins with the first event; from [Revision], with the next one. When ctx ends
// the watch ends, without an error. An error is the last thing that it yields: [ErrCompacted],
// [coordd.ErrHistoryLost], [coordd.ErrInvalid], or what no waiting mends and the first statement
// met: no tables, no database, no privilege, a wrong password. All else it takes for an outage
// and tries again.
//
// A watch of few topics that is resumed from an old event may be told ErrCompacted though
// only events of other topics have been deleted.
func (c Config) Watch(ctx context.Context, db *coordd.DB, from int64, topics ...string) iter.Seq2[Event, error] {
	c = c.withDefaults()
	return func(yield func(Event, error) bool) {
		if err := c.check(from); err != nil {
			yield(Event{}, fmt.Errorf("events: %w", err))
			return
		}
		w := watch{cfg: c, db: db, topics: topics, position: from, seen: from}
		w.run(ctx, yield)
	}
}
