package election

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
	"github.com/coordd/coordd/internal/lease"
)

// Leader is who leads.
type Leader struct {
	MemberID string
	Name     string // of the member
	Address  string
	Client   string // on whose behalf it leads, if not its own
	Term     int64
	Value    string    // that it has published
	Since    time.Time // by the database's clock: for people
}

// Candidate is one that waits to be elected.
type Candidate = lease.Waiter

// Info is how an election stands.
type Info struct {
	Name       string
	Term       int64   // the newest
	Leader     *Leader // nil: nobody leads
	Candidates []Candidate
}

func show(l lease.Info) Info {
	info := Info{Name: strings.TrimPrefix(l.Name, prefix), Term: l.Token, Candidates: l.Waiters}
	for _, h := range l.Holders {
		info.Leader = &Leader{h.MemberID, h.Name, h.Address, h.Client, h.Token, h.Value, h.Since}
	}
	return info
}

// Inspect tells how an election stands.
func Inspect(ctx context.Context, db *coordd.DB, name string) (Info, error) {
	if err := checkName(name); err != nil {
		return Info{}, err
	}
	l, err := lease.Inspect(ctx, db, prefix+name)
	if err != nil {
		return Info{}, fmt.Errorf("election %q: %w", name, err)
	}
	return show(l), nil
}

// List tells how all elections stand in which anybody ever campaigned, by name.
func List(ctx context.Context, db *coordd.DB) ([]Info, error) {
	leases, err := lease.List(ctx, db, prefix)
	if err != nil {
		return nil, fmt.Errorf("elections: %w", err)
	}
	return showAll(leases), nil
}

// Page is List, of those whose names come after one, and not more than limit of them.
func Page(ctx context.Context, db *coordd.DB, after string, limit int) ([]Info, error) {
	leases, err := lease.Page(ctx, db, prefix, after, limit)
	if err != nil {
		return nil, fmt.Errorf("elections: %w", err)
	}
	return showAll(leases), nil
}

func showAll(leases []lease.Info) []Info {
	all := make([]Info, 0, len(leases))
	for _, l := range leases {
		all = append(all, show(l))
	}
	return all
}

// Current tells who leads, or fails with [coordd.ErrNone]. It is a moment old when it returns:
// only the leader itself knows whether it still leads, by [Leadership.Valid].
func Current(ctx context.Context, db *coordd.DB, name string) (Leader, error) {
	info, err := Inspect(ctx, db, name)
	if err == nil && info.Leader == nil {
		err = fmt.Errorf("election %q: %w: nobody leads", name, coordd.ErrNone)
	}
	if err != nil {
		return Leader{}, err
	}
	return *info.Leader, nil
}

// watchPoll is the longest that a watch waits before it looks at the revision again, and
// watchTimeout ends a statement of it that was not answered.
const (
	watchPoll    = time.Second
	watchTimeout = 5 * time.Second
)

// Watch yields how an election stands, at once and each time its leader, its term or what it
// has published has changed. It tells the latest, not each step. It costs one small question a
// second, less late where the database rings ([coordd.DB]'s Listener). An error is told once
// each time the database begins to fail; the watch goes on until ctx ends or the loop is left.
func Watch(ctx context.Context, db *coordd.DB, name string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		rings, stop := db.Listen("")
		defer stop()
		var shown Leader
		var revision int64
		for told, failing := false, false; ; {
			info, now, err := look(ctx, db, name, revision)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !failing:
				failing = true
				if !yield(Info{Name: name}, err) {
					return
				}
			case err == nil && (now != revision || !told):
				revision, failing = now, false
				var leader Leader
				if info.Leader != nil {
					leader = *info.Leader
				}
				if leader != shown || !told {
					shown, told = leader, true
					if !yield(info, nil) {
						return
					}
				}
			case err == nil:
				failing = false
			}
			timer := time.NewTimer(watchPoll)
			select {
			case <-timer.C:
			case <-rings:
			case <-ctx.Done():
			}
			timer.Stop()
		}
	}
}

// look reads the election if anything at all has changed since a revision.
func look(ctx context.Context, db *coordd.DB, name string, since int64) (Info, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	revision, err := journal.Revision(ctx, db.Queries)
	if err != nil {
		return Info{}, 0, fmt.Errorf("watch election %q: %w", name, err)
	}
	if revision == since && since > 0 {
		return Info{}, revision, nil
	}
	info, err := Inspect(ctx, db, name)
	return info, revision, err
}

// Ask says what is asked of a leader, and on whose behalf. Its Name is that of the election.
type Ask = lease.Ask

// ErrNoCandidate says that the member that is to lead next does not campaign.
var ErrNoCandidate = lease.ErrNotWaiting

// Request asks the leader to resign, and waits until it does not lead any more; one that has not
// obeyed within a time is condemned, and its session ends with all that it holds, which takes
// up to its TTL and a little more. A leadership is never taken from a living session. It is told by an event, with who asked, and why. The dismissed leader may
// campaign again, behind those who wait. It fails with [coordd.ErrNone] if nobody leads, with
// [ErrNoCandidate] if the one that is to lead next does not campaign, and with [coordd.ErrFenced] if the term is not the one that is
// named any more.
func Request(ctx context.Context, db *coordd.DB, ask Ask) error {
	if err := checkName(ask.Name); err != nil {
		return err
	}
	ask.Name = prefix + ask.Name
	return lease.Release(ctx, db, ask)
}

// Dismiss is [Request] in short.
func Dismiss(ctx context.Context, db *coordd.DB, name, by, reason string, within time.Duration) error {
	return Request(ctx, db, Ask{Name: name, By: by, Reason: reason, Within: within})
}

// Transfer is Dismiss, and the candidate that is named, by its member's id, comes before all
// others. It fails with [ErrNoCandidate] if that one is none.
func Transfer(ctx context.Context, db *coordd.DB, name, to, by, reason string, within time.Duration) error {
	return Request(ctx, db, Ask{Name: name, To: to, By: by, Reason: reason, Within: within})
}
