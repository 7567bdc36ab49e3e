package lease

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

var recordFor = flag.Duration("record", 5*time.Second, "how long TestHistoriesAreThoseOfALease records")

// recorder is one run: clients that want a few leases while connections are killed, members
// die and replies are lost.
type recorder struct {
	*testing.T
	db    *coordd.DB // that nothing befalls
	began time.Time

	killed, died, lost, late atomic.Int32 // faults
	dying                    atomic.Int32 // how many at present: others must be there to see it

	mu   sync.Mutex
	ops  map[string][]op // by lease
	ends map[string]op   // of members, by their ids
}

// now is the time in a history. No two moments of one goroutine are the same.
func (r *recorder) now() int64 { return max(1, time.Since(r.began).Microseconds()) }

func (r *recorder) note(lease string, o op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops[lease] = append(r.ops[lease], o)
}

// ended notes when a member may have ended; of what is noted first it is the earliest.
func (r *recorder) ended(s *heartbeat.Session, from, to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := op{From: from, To: to, Do: end, By: s.ID()}
	if before, known := r.ends[s.ID()]; known {
		o.From = before.From
	}
	r.ends[s.ID()] = o
}

// The histories of eight clients on real databases are those of a lease. A run in which too
// little happened, or that could not be checked, fails. One that is not is saved beside the
// others, and has to be rejected from then on.
func TestHistoriesAreThoseOfALease(t *testing.T) {
	dbtest.AsAdministrator(t) // for a table of its own
	for name, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := schema(t)
			r := &recorder{T: t, db: dbtest.Migrated(t, dsn), began: time.Now(), ops: map[string][]op{}, ends: map[string]op{}}
			if _, err := r.db.Exec(t.Context(), `create table written (id varchar(36) not null primary key)`); err != nil {
				t.Fatal(err)
			}
			r.run(dsn)
			happened := r.happened()
			for lease, history := range r.settle() {
				switch result := check(history, dbtest.Patience); result {
				case porcupine.Ok:
				case porcupine.Illegal:
					path := filepath.Join(histories, fmt.Sprintf("found-%s-%s.jsonl", name, time.Now().UTC().Format("20060102-150405")))
					err := recording{What: name + ": found by TestHistoriesAreThoseOfALease", ops: history}.save(path)
					t.Errorf("%s: its history is not one of a lease; saved as %s, %v", lease, path, err)
				default:
					t.Errorf("%s: whether its history of %d is one of a lease: got %s, want to know", lease, len(history), result)
				}
			}
			t.Logf("%+v", happened)
			if !happened.enough() {
				t.Error("too little happened: nothing was shown")
			}
		})
	}
}

// happenings are what makes a run worth checking.
type happenings struct{ asked, killed, died, lost, late int }

func (r *recorder) happened() happenings {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := 0
	for _, history := range r.ops {
		asked += len(history)
	}
	return happenings{asked, int(r.killed.Load()), int(r.died.Load()), int(r.lost.Load()), int(r.late.Load())}
}

func (h happenings) enough() bool {
	return h.asked >= 200 && h.killed >= 3 && h.died >= 2 && h.lost >= 10 && h.late >= 3
}

// run runs eight clients, each with a pool of its own, and what befalls them.
func (r *recorder) run(dsn string) {
	ctx, cancel := context.WithCancel(r.Context())
	named := "history-" + uuid.NewString()
	watcher, err := heartbeat.Join(ctx, r.db, heartbeat.Config{Name: "watcher", TTL: shortTTL}) // stays long enough to see others dead
	if err != nil {
		r.Fatal(err)
	}
	defer watcher.Leave(r.Context())
	var working sync.WaitGroup
	for i := range 8 {
		db, tap := dbtest.OpenTapped(r.T, withName(r.T, dsn, named))
		c := &client{recorder: r, db: db, tap: tap, name: fmt.Sprint("app-", i)}
		tap.Disturb(c.disturb)
		working.Go(func() { c.work(ctx) })
	}
	working.Go(func() {
		// Who has lost a beat or a look declares nobody dead for a while, so this is no storm.
		for sleep(ctx, 200*time.Millisecond+rand.N(500*time.Millisecond)) {
			r.killConnection(ctx, named)
		}
	})
	sleep(ctx, *recordFor)
	for deadline := time.Now().Add(dbtest.Patience); time.Now().Before(deadline) && !r.happened().enough(); {
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	working.Wait()
}

// withName has a PostgreSQL know connections by a name.
func withName(t *testing.T, dsn, name string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme == "postgres" {
		query := u.Query()
		query.Set("application_name", name)
		u.RawQuery = query.Encode()
	}
	return u.String()
}

// killConnection kills a connection of some client.
func (r *recorder) killConnection(ctx context.Context, named string) {
	product, err := r.db.Product(ctx)
	list, kill := `select id from information_schema.processlist where db = database() and id <> connection_id()`, `kill connection %d`
	if product == "PostgreSQL" {
		list, kill = `select pid from pg_stat_activity where application_name = '`+named+`'`, `select pg_terminate_backend(%d)`
	}
	all, failed := coordd.All(ctx, r.db.Queries, func(n *int64) []any { return []any{n} }, list)
	if err != nil || failed != nil || len(all) == 0 {
		return
	}
	// One of this pool's own may be hit as well: nothing depends on it.
	if _, err := r.db.Pool().ExecContext(ctx, fmt.Sprintf(kill, all[rand.IntN(len(all))])); err == nil {
		r.killed.Add(1)
	}
}

// settle adds what is only known now: who has died, and what was written.
func (r *recorder) settle() map[string][]op {
	written, err := coordd.All(r.Context(), r.db.Queries, func(s *string) []any { return []any{s} }, `select id from written`)
	if err != nil {
		r.Fatal(err)
	}
	states, err := coordd.All(r.Context(), r.db.Queries, func(m *[2]string) []any { return []any{&m[0], &m[1]} }, `select member_id, state from coordd_heartbeats`)
	if err != nil {
		r.Fatal(err)
	}
	for lease, history := range r.ops {
		history = slices.DeleteFunc(history, func(o op) bool {
			there := slices.Contains(written, o.tx)
			if o.Do == commit && !o.open && o.Else == "" && !there {
				r.Errorf("%s: a transaction that was committed is not there", lease)
			}
			if o.Else == fenced && there {
				r.Errorf("%s: a transaction that was fenced off is there", lease)
			}
			return o.open && !there
		})
		for _, m := range states {
			matters := slices.ContainsFunc(history, func(o op) bool { return o.Do == take && o.By == m[0] })
			if o, known := r.ends[m[0]]; m[1] != "alive" && known && matters {
				history = append(history, o)
			}
		}
		slices.SortStableFunc(history, func(a, b op) int { return int(a.From - b.From) })
		r.ops[lease] = history
	}
	return r.ops
}

// client is one process, which joins again when its session is lost.
type client struct {
	*recorder
	db   *coordd.DB
	tap  *dbtest.Tap
	name string

	// grants that were sent, and what settles them: each may move the token. Where what begins the transaction of a
	// grant is lost, the grant is not sent, and superseded all the same.
	grants atomic.Int32

	mu   sync.Mutex
	dead bool // nothing that it sends arrives
}

// disturb loses some replies, and all of a client that has died.
func (c *client) disturb(ctx context.Context, stmt string, do func() error) error {
	c.mu.Lock()
	dead := c.dead
	c.mu.Unlock()
	if isGrant(stmt) || isSupersede(stmt) {
		c.grants.Add(1)
	}
	if dead {
		if err := dbtest.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		return dbtest.ErrBroken
	}
	chance := rand.IntN(200)
	switch {
	case isBeat(stmt) || isLook(stmt) || chance > 6:
		return do()
	case chance > 2:
		c.lost.Add(1)
		return notAnswered(nil, do)
	}
	c.late.Add(1)
	return dbtest.Later(after(rand.N(50*time.Millisecond), nil))
}

func (c *client) work(ctx context.Context) {
	for ctx.Err() == nil {
		joined := c.now()
		s, err := heartbeat.Join(ctx, c.db, heartbeat.Config{Name: c.name, TTL: shortTTL})
		if err != nil {
			sleep(ctx, 20*time.Millisecond)
			continue
		}
		for range rand.IntN(30) + 5 {
			if ctx.Err() == nil && s.Err() == nil {
				c.turn(ctx, s)
			}
		}
		if c.dying.Add(1) <= 2 && s.Err() == nil {
			c.die(ctx, s)
		}
		c.dying.Add(-1)
		if s.Err() != nil {
			c.ended(s, joined, c.now()) // on a busy machine, or because it has died
			s.Leave(ctx)
			continue
		}
		c.ended(s, c.now(), 0)
		if s.Leave(ctx) == nil {
			c.ended(s, 0, c.now())
		}
	}
}

// die keeps everything of the client from arriving until somebody has declared it dead, or that
// takes too long. What it held it then goes on using, and does not know better: it begins before
// another has taken over, if it can, and is slow to commit.
func (c *client) die(ctx context.Context, s *heartbeat.Session) {
	lease := c.lease()
	h := c.take(ctx, s, lease)
	c.ended(s, c.now(), 0)
	c.cut(true)
	for began := time.Now(); ctx.Err() == nil && time.Since(began) < 4*shortTTL; {
		if time.Since(began) < shortTTL/2 {
			c.turn(ctx, s)
		}
		var state string
		if err := c.recorder.db.Get(ctx, []any{&state}, `select state from coordd_heartbeats where member_id = ?`, s.ID()); err == nil && state == "dead" {
			c.ended(s, 0, c.now())
			c.died.Add(1)
			break
		}
		sleep(ctx, 5*time.Millisecond)
	}
	c.cut(false)
	if h != nil {
		c.use(ctx, s, lease, h, 1+rand.IntN(3), 200*time.Millisecond)
	}
}

func (c *client) cut(dead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = dead
}

func (c *client) lease() string { return fmt.Sprint("lock/", rand.IntN(3)) }

// turn takes a lease, guards some transactions by it, and gives it back.
func (c *client) turn(ctx context.Context, s *heartbeat.Session) {
	lease := c.lease()
	if h := c.take(ctx, s, lease); h != nil {
		c.use(ctx, s, lease, h, rand.IntN(3), 5*time.Millisecond)
	} else {
		sleep(ctx, rand.N(20*time.Millisecond))
	}
}

// take takes the lease. A call that sends several grants is several things asked: of those that
// were not answered nothing is known but that they are settled when it is over.
func (c *client) take(ctx context.Context, s *heartbeat.Session, lease string) *Held {
	sent := c.grants.Load()
	o := op{From: c.now(), Do: take, By: s.ID()}
	h, err := c.want(ctx, s, lease)
	o.To = c.now()
	refusal := new(HeldError)
	switch {
	case h != nil:
		o.ID, o.Token = h.id, h.Token()
		c.note(lease, o)
		c.unanswered(lease, o, int(c.grants.Load()-sent)-1)
		return h
	case errors.As(err, &refusal) && refusal.Holder != "":
		o.Do, o.Else, o.Token = refused, refusal.Holder, refusal.Token
		c.note(lease, o)
	}
	o.To = c.settled(s)
	c.unanswered(lease, o, int(c.grants.Load()-sent))
	return nil
}

// unanswered notes so many grants that were sent within the time of an op: each may have been
// given, and given back.
func (c *client) unanswered(lease string, o op, grants int) {
	if grants > 0 {
		id := uuid.NewString()
		c.note(lease, op{From: o.From, To: o.To, Do: take, By: o.By, ID: id, Else: unknown, Times: grants})
		c.note(lease, op{From: o.From, To: o.To, Do: release, By: o.By, ID: id})
	}
}

// use guards some transactions by a lease, that take so long to commit at the most, and gives it
// back.
func (c *client) use(ctx context.Context, s *heartbeat.Session, lease string, h *Held, transactions int, slow time.Duration) {
	for range transactions {
		c.note(lease, c.transaction(ctx, s, h, slow))
		sleep(ctx, rand.N(10*time.Millisecond))
	}
	if from := c.now(); h.Valid() {
		c.note(lease, op{From: from, To: c.now(), Do: valid, By: s.ID(), ID: h.id})
	}
	o := op{From: c.now(), Do: release, By: s.ID(), ID: h.id}
	if h.Release(ctx) == nil {
		o.To = c.now()
	} else {
		o.To = c.settled(s)
	}
	c.note(lease, o)
}

// settled waits until the session has nothing under way any more, and tells when that was; 0: it
// may have for a long time.
func (c *client) settled(s *heartbeat.Session) int64 {
	k := of(s)
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && s.Err() == nil; {
		k.mu.Lock()
		n := len(k.grants)
		k.mu.Unlock()
		if n == 0 {
			return c.now()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}

// want tries, or waits for a while.
func (c *client) want(ctx context.Context, s *heartbeat.Session, lease string) (*Held, error) {
	ctx, cancel := context.WithTimeout(ctx, rand.N(500*time.Millisecond))
	defer cancel()
	if rand.IntN(2) == 0 {
		return Acquire(ctx, s, Want{Name: lease})
	}
	return Try(ctx, s, Want{Name: lease})
}

// transaction writes something that is guarded. That the session ends the right is no obstacle:
// it is the statement that has to fence. What counts is when it was committed, or fenced off.
func (c *client) transaction(ctx context.Context, s *heartbeat.Session, h *Held, slow time.Duration) op {
	o := op{Do: commit, By: s.ID(), ID: h.id, tx: uuid.NewString()}
	err := c.guarded(ctx, h, o.tx, slow, func() { o.From = c.now() })
	switch {
	case err == nil:
		o.To = c.now()
	case errors.Is(err, coordd.ErrFenced):
		o.Else, o.To = fenced, c.now()
	default: // if it was committed, then before this
		c.tap.Settle()
		o.To, o.open = c.now(), true
	}
	return o
}

// guarded tells before each of the steps that may be the last.
func (c *client) guarded(ctx context.Context, h *Held, id string, slow time.Duration, step func()) error {
	step()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	tx, err := c.db.Pool().BeginTx(ctx, &sql.TxOptions{Isolation: levels[rand.IntN(len(levels))]})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := c.db.On(tx).Exec(ctx, `insert into written (id) values (?)`, id); err != nil {
		return err
	}
	step()
	if err := h.check(ctx, tx); err != nil {
		return err
	}
	sleep(ctx, rand.N(slow))
	step()
	return tx.Commit()
}
