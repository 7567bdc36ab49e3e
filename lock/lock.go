// Package lock has distributed locks that hang on a session: held by one, shared by readers, or
// by a number of permits.
//
//	held, err := lock.Acquire(ctx, session, lock.Exclusive("nightly-report"))
//	if err != nil {
//		return err
//	}
//	defer held.Release(ctx)
//	return report(held.Context())
//
// A lock is a context that ends and a token that grows. The context ends when the lock is lost:
// with the session, at the latest when no beat was answered for its TTL, with no network and no
// database. The token fences: [Held.InTx] runs a transaction that fails if another has been
// given the lock since, and whoever would be given it waits for that transaction.
//
// What it promises: two processes never see Valid for one exclusive lock at one instant,
// whatever the database's clock does, while committed writes survive, reads go to the primary
// and local clock rates differ by at most 1 %. A machine that is frozen in a way that none of
// its own clocks shows may believe for a moment that it is valid: guard what must not be
// written then. Those who wait take turns in the order in which they came.
//
// A lock is its handle's and not its session's: a second Acquire of the same session waits like
// everybody else's, and for ever if it waits for the first.
//
// What it costs: two statements to take and release a lock that nobody else wants, one more
// where its token is not remembered; nothing while it is held but the session's beat and one
// statement each five beats for all that the session holds.
package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/lease"
	"github.com/coordd/coordd/internal/name"
)

// Request is a lock that somebody asks for. Make it with [Exclusive], [Shared] or [Semaphore].
type Request struct {
	name   string
	limit  int
	client string
}

// Exclusive is held by one at a time.
func Exclusive(name string) Request { return Request{name: name} }

// Shared is held by any number at a time, and by none while [Exclusive] is held. A reader that
// comes while a writer waits comes after it, so no writer starves. Nobody can change from one
// to the other without releasing it.
func Shared(name string) Request { return Request{name: name, limit: lease.Unlimited} }

// Semaphore is held by so many at a time. All who ask should say the same number; where they do
// not, each is content with its own.
func Semaphore(name string, permits int) Request {
	if permits < 1 {
		permits = -1 // refused when it is asked for; 0 would be Exclusive
	}
	return Request{name: name, limit: permits}
}

// For says on whose behalf the session takes the lock, for others to see who look at it.
func (r Request) For(client string) Request {
	r.client = client
	return r
}

// HeldError says who holds a lock, and since when; it is [coordd.ErrHeld].
type HeldError = lease.HeldError

// prefix is of locks among the leases.
const prefix = "lock/"

func (r Request) want() lease.Want {
	return lease.Want{Name: prefix + r.name, Limit: r.limit, Client: r.client}
}

// check orders requests by name, so that nobody waits for another in a circle.
func check(requests []Request) ([]Request, error) {
	if len(requests) == 0 {
		return nil, fmt.Errorf("lock: %w: no lock is asked for", coordd.ErrInvalid)
	}
	sorted := slices.SortedFunc(slices.Values(requests), func(a, b Request) int { return cmp.Compare(a.name, b.name) })
	for i, r := range sorted {
		if err := name.Check("lock name", r.name); err != nil {
			return nil, fmt.Errorf("%w: %w", coordd.ErrInvalid, err)
		}
		if err := name.CheckOptional("client", r.client); err != nil {
			return nil, fmt.Errorf("lock %q: %w: %w", r.name, coordd.ErrInvalid, err)
		}
		if r.limit < 0 {
			return nil, fmt.Errorf("lock %q: %w: a semaphore needs at least one permit", r.name, coordd.ErrInvalid)
		}
		if i > 0 && r.name == sorted[i-1].name {
			return nil, fmt.Errorf("lock %q: %w: it is asked for twice", r.name, coordd.ErrInvalid)
		}
	}
	return sorted, nil
}

// Try takes all of the locks if they can be had at once, or none, and fails with a [*HeldError]
// that is [coordd.ErrHeld], or with a [*RequestedError] that is, where somebody asked for it in
// that moment. Other errors: [coordd.ErrLost], [heartbeat.ErrSuspended] and [heartbeat.ErrLeft] of
// the session, [coordd.ErrQuarantine], and those of the database; after them nothing is held
// either. Its ctx bounds the call and nothing after it; so does the TTL, for each of the locks.
func Try(ctx context.Context, s *heartbeat.Session, requests ...Request) (*Held, error) {
	return all(ctx, s, requests, lease.Try)
}

// Acquire waits its turn for all of the locks, one after the other in the order of their names,
// so that nobody waits for another in a circle. It waits until ctx ends or the session is lost;
// an outage of the database or a suspension of the session only makes it longer. Its ctx
// bounds the call and nothing after it; when that ends, the error wraps why, and what was in the
// way last: a [*HeldError], or what the database said.
func Acquire(ctx context.Context, s *heartbeat.Session, requests ...Request) (*Held, error) {
	for {
		h, err := all(ctx, s, requests, lease.Acquire)
		if err == nil || !errors.Is(err, errAnew) || ctx.Err() != nil {
			return h, err
		}
		// What it had was lost while it waited for the next: it begins anew when it can.
		for status := range s.States(ctx) {
			if status != heartbeat.Suspended {
				break
			}
		}
	}
}

// errAnew says that one of several locks was lost while the next was waited for.
var errAnew = errors.New("one was lost while the others were waited for")

// all takes one lock after the other, and gives back what it has if it cannot have all, or
// loses one meanwhile.
func all(ctx context.Context, s *heartbeat.Session, requests []Request, take func(context.Context, *heartbeat.Session, lease.Want) (*lease.Held, error)) (*Held, error) {
	sorted, err := check(requests)
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &Held{first: requests[0].name}
	for _, r := range sorted {
		var one *lease.Held
		if one, err = take(waiting, s, r.want()); err != nil {
			err = fmt.Errorf("lock %q: %w", r.name, err)
			break
		}
		h.held = append(h.held, one)
		defer context.AfterFunc(one.Context(), cancel)()
	}
	lost := h.Err()
	switch {
	case err == nil && lost == nil:
		h.join()
		return h, nil
	case lost != nil:
		err = fmt.Errorf("%w: %w", errAnew, lost)
	}
	return nil, errors.Join(err, h.Release(ctx))
}

// Do takes a lock, runs fn, and releases it when fn has returned. The context of fn ends with
// ctx and with the lock. It returns what Acquire or fn returned; if the lock was lost under fn,
// and fn returned nil, it is [coordd.ErrLost].
func Do(ctx context.Context, s *heartbeat.Session, r Request, fn func(ctx context.Context, h *Held) error) (err error) {
	h, err := Acquire(ctx, s, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Release(ctx)) }() // also where fn panics
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(h.Context(), func() { cancel(context.Cause(h.Context())) })
	err = fn(work, h)
	stop()
	if err == nil {
		err = h.Err()
	}
	return err
}
