package heartbeat

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// watchPoll is the longest that a watch waits before it looks at the revision again.
const watchPoll = time.Second

// watchTimeout ends a statement of a watch that was not answered.
const watchTimeout = 5 * time.Second

// Watch yields the members that live (alive, draining or condemned), at once and each time
// that set, or what stands of one of them but its age, load, Held and Slots, has changed. It
// tells the latest state, not each step: who is slow misses what has passed. It needs no
// session.
//
// It asks one small question a second, less late where the database rings ([coordd.DB]'s
// Listener), and reads the members when something has changed. An error is told once each
// time the database begins to fail, with no members; the watch goes on until ctx ends or the
// loop is left.
func Watch(ctx context.Context, db *coordd.DB) iter.Seq2[[]Member, error] {
	return func(yield func([]Member, error) bool) {
		rings, stop := db.Listen("")
		defer stop()
		w := watch{db: db, revision: -1}
		for {
			living, err := w.look(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !w.failing:
				w.failing = true
				if !yield(nil, fmt.Errorf("watch members: %w", err)) {
					return
				}
			case err == nil && w.news(living):
				if !yield(living, nil) {
					return
				}
			}
			if !wait(ctx, watchPoll, rings) {
				return
			}
		}
	}
}

// watch is one loop over Watch.
type watch struct {
	db       *coordd.DB
	revision int64 // of what was read last
	shown    []string
	told     bool // something was shown
	failing  bool
}

// look reads the living members, or nothing if nothing at all has changed since it last
// did. The revision is read first: what changes between the two is seen the next time.
func (w *watch) look(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	revision, err := journal.Revision(ctx, w.db.Queries)
	if err != nil || revision == w.revision {
		return nil, err
	}
	members, err := listMembers(ctx, w.db, stmtMembers+whereLiving)
	if err != nil {
		return nil, err
	}
	w.revision = revision
	return members, nil
}

// news says whether there is something to show that was not shown last.
func (w *watch) news(living []Member) bool {
	w.failing = false
	if living == nil {
		return false
	}
	now := make([]string, 0, len(living))
	for _, m := range living {
		now = append(now, fmt.Sprint(m.ID, m.Name, m.Address, m.Version, m.Labels, m.State))
	}
	changed := !w.told || !slices.Equal(now, w.shown)
	w.shown, w.told = now, true
	return changed
}
