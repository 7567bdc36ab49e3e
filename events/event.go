package events

import (
	"context"
	"fmt"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// Event is one change.
type Event struct {
	Revision int64     // grows from event to event in the order of their commits
	At       time.Time // by the database's clock: for people
	Topic    string    // what kind of thing has changed: "member"
	Subject  string    // its name
	Action   string    // what has happened to it: "joined"
	MemberID string    // of the member that it happened to, or that did it; may be empty
	Data     string    // JSON: the thing after the change, or as it last was
}

// ErrCompacted says that events after a reader's revision have been deleted, as they were
// old. Take [Revision], read the state that you follow anew, and watch from that revision;
// so too after [coordd.ErrHistoryLost].
var ErrCompacted = journal.ErrCompacted

// MaxList is the most events that List returns.
const MaxList = 1000

// Revision is the revision of the newest event; 0 before the first.
func Revision(ctx context.Context, db *coordd.DB) (int64, error) {
	revision, err := journal.Revision(ctx, db.Queries)
	if err != nil {
		return 0, fmt.Errorf("events: %w", err)
	}
	return revision, nil
}

// List returns the events after a revision in their order, limit at most (1 to [MaxList]), of
// the given topics or of all. It fails with [ErrCompacted] or [coordd.ErrHistoryLost] where a watch
// from there would.
func List(ctx context.Context, db *coordd.DB, after int64, limit int, topics ...string) ([]Event, error) {
	if after < 0 || limit < 1 || limit > MaxList {
		return nil, fmt.Errorf("events: %w: after %d, limit %d: a revision is not negative, and the limit is 1 to %d", coordd.ErrInvalid, after, limit, MaxList)
	}
	page, err := journal.Read(ctx, db.Queries, after, limit, topics...)
	if err != nil {
		return nil, fmt.Errorf("events after revision %d: %w", after, err)
	}
	events := make([]Event, len(page.Events))
	for i, e := range page.Events {
		events[i] = Event(e)
	}
	return events, nil
}
