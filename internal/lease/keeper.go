package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
)

// keeper is all that a session holds and waits for, as its own process knows it.
type keeper struct {
	heartbeat.Seam
	session *heartbeat.Session
	started sync.Once

	mu     sync.Mutex
	grants map[string]*Held    // by grant id, from before the grant is sent until it is given back
	places map[string]struct{} // tickets, by id, from before they are asked for until they are given back
	tokens map[string]int64    // of leases that were given back when nobody waited
	floor  int64               // the highest that was seen
}

type keeperKey struct{}

// of returns the keeper of a session.
func of(s *heartbeat.Session) *keeper {
	k := s.Beside(keeperKey{}, func(seam heartbeat.Seam) any {
		return &keeper{Seam: seam, session: s, grants: map[string]*Held{}, places: map[string]struct{}{}, tokens: map[string]int64{}}
	}).(*keeper)
	k.started.Do(func() { k.Go(k.keep) })
	return k
}

// stmtKept is all rows of a member.
const stmtKept = `select 'lease', name, grant_id, token, request from coordd_leases where holder = ?
	union all
	select 'shared', s.lease, s.grant_id, s.token, l.request from coordd_shared s join coordd_leases l on l.name = s.lease where s.member_id = ?
	union all
	select 'place', lease, id, ticket, '' from coordd_waiters where member_id = ?`

// sweepEvery is how many beats pass between two looks for rows that nobody knows of.
const sweepEvery = 5

// keep obeys requests, and gives back what the database has for this session and no call
// knows of: what a statement has written that was given up and executed late.
func (k *keeper) keep(ctx context.Context) {
	rings, stop := k.DB.Listen("")
	defer stop()
	for last := time.Now(); ctx.Err() == nil; {
		news := k.News()
		if k.busy() || time.Since(last) >= sweepEvery*k.Beat {
			k.sweep(ctx) // what fails is done the next time
			last = time.Now()
			sleep(ctx, k.Beat/10) // however often it rings
		}
		select {
		case <-ctx.Done():
		case <-news:
		case <-rings:
		case <-time.After(sweepEvery * k.Beat):
		}
	}
}

// busy says whether this session holds or waits for anything.
func (k *keeper) busy() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.grants)+len(k.places) > 0
}

// kept is one row of stmtKept.
type kept struct {
	kind, lease, id string
	number          int64 // token, or ticket
	request         string
}

func (k *keeper) sweep(ctx context.Context) {
	before := k.ids() // as what was read may be given back meanwhile
	rows, err := k.rows(ctx)
	if err != nil {
		return
	}
	for _, r := range rows {
		k.mu.Lock()
		held, known := k.grants[r.id]
		_, waiting := k.places[r.id]
		k.mu.Unlock()
		_, was := before[r.id]
		switch {
		case held != nil && r.request != "":
			held.obey(r.request)
		case known || waiting || was: // what nobody knows of any more is given back the next time
		case r.kind == "place":
			_ = k.forgetPlace(ctx, r.lease, r.id)
		default:
			w := Want{Name: r.lease, Recorded: true} // for who looks for what went wrong
			if r.kind == "shared" {
				w.Limit = Unlimited
			}
			_ = k.giveBack(ctx, w, r.id, r.number)
		}
	}
}

// ids are those of all grants and places that somebody knows of.
func (k *keeper) ids() map[string]struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := maps.Clone(k.places)
	for id := range k.grants {
		ids[id] = struct{}{}
	}
	return ids
}

// rows reads all that the database has for this session.
func (k *keeper) rows(ctx context.Context) ([]kept, error) {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	me := k.session.ID()
	return coordd.All(ctx, k.DB.Queries, func(r *kept) []any {
		return []any{&r.kind, &r.lease, &r.id, &r.number, &r.request}
	}, stmtKept, me, me, me)
}

// known notes a grant id before it is sent.
func (k *keeper) known(id string, held *Held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.grants[id] = held
}

// unknown forgets it once it is settled that it is not held.
func (k *keeper) unknown(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.grants, id)
}

// remembered are at most so many tokens: a statement more is the price of forgetting one.
const remembered = 10_000

// remember notes under which token a lease was free.
func (k *keeper) remember(name string, token int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for other := range k.tokens {
		if len(k.tokens) < remembered {
			break
		}
		delete(k.tokens, other)
	}
	k.tokens[name] = token
}

// recall returns how a lease stood when it was last seen free, once.
func (k *keeper) recall(name string) (st standing, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	token, known := k.tokens[name]
	delete(k.tokens, name)
	return standing{token: token, floor: k.floor, history: k.History, intact: true}, known
}

func (k *keeper) sawFloor(floor int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.floor = max(k.floor, floor)
}

// bounded is a context for one statement.
func (k *keeper) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, k.Timeout)
}

// insist does something until it is done or ctx ends, or no waiting mends what is wrong.
func insist(ctx context.Context, do func() error) error {
	pause := firstPause
	for last := error(nil); ; {
		err := do()
		if err != nil && ctx.Err() != nil {
			return cmp.Or(last, err) // what the end of ctx has cut short says little
		}
		if err == nil || errors.Is(err, coordd.ErrSchema) || errors.Is(err, coordd.ErrForbidden) || !sleep(ctx, pause) {
			return err
		}
		pause, last = min(2*pause, time.Second), err
	}
}

// ended is why a call has ended, beside what was in its way last.
func ended(cause, last error) error {
	switch {
	case last == nil, errors.Is(last, context.Canceled): // cut short
		return cause
	case errors.Is(last, cause):
		return last
	}
	return fmt.Errorf("%w: %w", cause, last)
}

// sleep waits for d, and says false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
