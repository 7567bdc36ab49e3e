package lock

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/lease"
	"github.com/coordd/coordd/internal/name"
)

// Holder is one that holds a lock, alone or with others.
type Holder = lease.Holder

// Waiter is one that waits for a lock.
type Waiter = lease.Waiter

// Info is how a lock stands: its newest token, who holds it, and who waits in which order. Who
// has ended does not show.
type Info = lease.Info

// Topic is the topic of events about locks: forced releases, with the action requested. Their
// subject is the lock's name.
const Topic = "lock"

// Inspect tells how a lock stands. One that was never asked for is free.
func Inspect(ctx context.Context, db *coordd.DB, name string) (Info, error) {
	if err := checkName(name); err != nil {
		return Info{}, err
	}
	info, err := lease.Inspect(ctx, db, prefix+name)
	if err != nil {
		return Info{}, fmt.Errorf("lock %q: %w", name, err)
	}
	info.Name = name
	return info, nil
}

func checkName(s string) error {
	if err := name.Check("lock name", s); err != nil {
		return fmt.Errorf("%w: %w", coordd.ErrInvalid, err)
	}
	return nil
}

// Tidy removes what leases leave behind in the tables: rows of locks and elections that nobody
// has held or wanted for longer than keep, and what members had that are purged. It says how
// many leases. The tokens of a lock that comes back go on above what they were. The daemon
// does it.
func Tidy(ctx context.Context, db *coordd.DB, keep time.Duration) (removed int64, err error) {
	for more := int64(1); more > 0 && err == nil; removed += more {
		more, err = lease.Tidy(ctx, db, keep)
	}
	return removed, err
}

// List tells how all locks stand that were ever asked for, by name.
func List(ctx context.Context, db *coordd.DB) ([]Info, error) {
	return named(lease.List(ctx, db, prefix))
}

// Page is List, of those whose names come after one, and not more than limit of them.
func Page(ctx context.Context, db *coordd.DB, after string, limit int) ([]Info, error) {
	return named(lease.Page(ctx, db, prefix, after, limit))
}

func named(all []Info, err error) ([]Info, error) {
	if err != nil {
		return nil, fmt.Errorf("locks: %w", err)
	}
	for i := range all {
		all[i].Name = strings.TrimPrefix(all[i].Name, prefix)
	}
	return all, nil
}

// Ask says what is asked of those who hold a lock, and on whose behalf. Its Name is the lock's;
// nobody can be preferred.
type Ask = lease.Ask

// RequestRelease asks everybody who holds a lock to release it, and waits until none of them holds
// it any more; those who have not obeyed within a time are condemned, and their sessions end
// with all that they hold, which takes up to their TTL and a little more. Nothing is ever taken
// from a living session. It is told by an event, with who asked, and
// why. It fails with [coordd.ErrNone] if nobody holds the lock, and with [coordd.ErrFenced] if
// it was granted since the token that is named.
func RequestRelease(ctx context.Context, db *coordd.DB, ask Ask) error {
	if err := checkName(ask.Name); err != nil {
		return err
	}
	ask.Name, ask.To = prefix+ask.Name, ""
	return lease.Release(ctx, db, ask)
}

// ForceRelease is [RequestRelease] in short.
func ForceRelease(ctx context.Context, db *coordd.DB, name, by, reason string, within time.Duration) error {
	return RequestRelease(ctx, db, Ask{Name: name, By: by, Reason: reason, Within: within})
}

// Tx locks a name for as long as a transaction of the caller's lasts, and waits for others that
// have it. It needs no session, has no token, and stands apart from the locks of [Acquire].
// Take several in one order. On Galera who comes second is not kept waiting: its commit fails.
func Tx(ctx context.Context, db *coordd.DB, on coordd.Querier, key string) error {
	if err := checkName(key); err != nil {
		return err
	}
	if err := lease.Lock(ctx, db.On(on), "tx/"+key); err != nil {
		return fmt.Errorf("lock %q for a transaction: %w", key, err)
	}
	return nil
}
