package rights

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/lock"
)

const (
	chaos  = 8 * time.Second        // for this long things go wrong
	enough = chaos + 40*time.Second // by then all must have come right
)

var simTTLs = []time.Duration{1200 * time.Millisecond, 1500 * time.Millisecond, 2 * time.Second}

// simMaxTTL is the longest of them: a quarantine lasts so long and a little more.
const simMaxTTL = `update coordd_meta set value = 2000 where name = 'max_ttl';`

// world is one seed.
type world struct {
	t       *testing.T
	sim     *dbtest.Sim
	hosts   []*host
	over    chan struct{} // closed when daemons are to leave
	zombies sync.WaitGroup
	behind  sync.WaitGroup // what crashed processes leave behind

	mu      sync.Mutex
	seen    map[string]int
	beliefs map[Kind]map[*client]belief // who counts on it
	tokens  map[Kind]int64              // the highest that anybody has counted on
}

// belief is that a right is held until some time, by no clock but the world's own.
type belief struct {
	token int64
	until time.Duration
}

// host is where one daemon runs, one process after the other.
type host struct {
	*dbtest.Host
	w   *world
	ttl time.Duration
	r   *rand.Rand

	mu      sync.Mutex
	desk    *Desk // nil: nobody answers
	session *heartbeat.Session
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, over: make(chan struct{}), seen: map[string]int{}, beliefs: map[Kind]map[*client]belief{}, tokens: map[Kind]int64{}}
	r := rand.New(rand.NewPCG(seed, 0))
	ttls := make([]time.Duration, 2+r.IntN(2))
	for i := range ttls {
		ttls[i] = simTTLs[r.IntN(len(simTTLs))]
	}
	w.sim = dbtest.NewSim(t, seed, chaos, ttls)
	w.sim.Script(simMaxTTL)
	for i, h := range w.sim.Hosts {
		w.hosts = append(w.hosts, &host{Host: h, w: w, ttl: ttls[i], r: w.sim.Rand(h.Name)})
	}
	return w
}

// run lets everything go wrong, then lets it come right.
func (w *world) run() {
	var daemons, clients sync.WaitGroup
	for _, h := range w.hosts {
		daemons.Go(h.run)
	}
	daemons.Go(w.operate)
	daemons.Go(w.undrain)
	daemons.Go(w.failOver)
	for i := range 5 {
		c := newClient(w, fmt.Sprint("client", i))
		clients.Go(c.run)
	}
	clients.Wait()
	if w.sim.Since() > enough {
		w.sim.Violated("clients had what they asked for only after %v", w.sim.Since())
	}
	w.zombies.Wait()
	time.Sleep(2 * mostTTL) // what nobody renews is given back
	for _, h := range w.hosts {
		for _, kind := range []Kind{Lock, Election} {
			if c := h.counts(kind); c.Held+c.Waiting != 0 {
				w.sim.Violated("%s: nobody wants anything any more, and it has %+v", h.Name, c)
			}
		}
	}
	w.checkFree()
	close(w.over)
	daemons.Wait()
	w.behind.Wait()
	w.sim.Close()
}

func (w *world) checkFree() {
	info, err := lock.Inspect(w.t.Context(), w.sim.Hosts[0].DB, contended)
	if err != nil || len(info.Holders)+len(info.Waiters) > 0 {
		w.sim.Violated("nobody wants it any more: got %+v and %v", info, err)
	}
}

func (w *world) saw(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[what]++
}

// believes records that a client counts on a right from now on.
func (w *world) believes(c *client, kind Kind, b belief) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.sim.Since()
	near := false
	for other, theirs := range w.beliefs[kind] {
		if other == c {
			continue
		}
		if theirs.until > now {
			w.sim.Violated("%s counts on %s until %v, with token %d, and %s until %v, with token %d", c.name, kind, b.until, b.token, other.name, theirs.until, theirs.token)
		}
		near = near || now-theirs.until < 300*time.Millisecond
	}
	if b.token < w.tokens[kind] {
		w.sim.Violated("%s counts on %s with token %d, after somebody had %d", c.name, kind, b.token, w.tokens[kind])
	}
	if near && b.token > w.tokens[kind] {
		w.seen[sawNear]++
	}
	w.tokens[kind] = max(w.tokens[kind], b.token)
	if w.beliefs[kind] == nil {
		w.beliefs[kind] = map[*client]belief{}
	}
	w.beliefs[kind][c] = b
}

// stops records that a client counts on a right no more.
func (w *world) stops(c *client, kind Kind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.beliefs[kind][c]; b.until > w.sim.Since() {
		w.beliefs[kind][c] = belief{b.token, w.sim.Since()}
	}
}

// run is the life of a host: a process joins, serves, joins again when its session was lost, until it
// crashes or leaves; and another comes after it.
func (h *host) run() {
	for {
		p := h.Start()
		desk := New(Config{Sessions: h.sessions, Now: h.Clock})
		ctx, cancel := context.WithCancel(h.w.t.Context())
		ended, r := make(chan struct{}), rand.New(rand.NewPCG(h.r.Uint64(), 0))
		go func() {
			defer close(ended)
			h.join(ctx, p, desk, r)
		}()
		crashes := h.r.IntN(2) == 0
		var planned <-chan time.Time // its end; most live for as long as they can
		if life := upTo(h.r, 2.5*chaos.Seconds()); h.w.sim.Since()+life < chaos {
			planned = time.After(life)
		}
		select {
		case <-h.w.over:
			cancel()
			<-ended
			return
		case <-planned:
		}
		h.up(nil, nil)
		if crashes {
			h.w.saw(sawCrash)
			h.w.sim.Note(h.Name, "crashes")
			p.Kill()
			cancel()
			h.w.behind.Go(func() { <-ended })
		} else {
			h.w.saw(sawLeave)
			h.w.sim.Note(h.Name, "leaves")
			cancel()
			<-ended
		}
		time.Sleep(upTo(h.r, 1))
	}
}

// join is a process: it joins, again and again, until ctx ends.
func (h *host) join(ctx context.Context, p *dbtest.Process, desk *Desk, r *rand.Rand) {
	joining := clock.With(context.WithoutCancel(ctx), h.Clock)
	for ctx.Err() == nil {
		s, err := heartbeat.Join(joining, p.DB, heartbeat.Config{Name: h.Name, Address: h.Name, TTL: h.ttl})
		if err != nil {
			h.w.sim.Note(h.Name, "join: %v", err)
			time.Sleep(upTo(r, 0.3))
			continue
		}
		h.w.sim.Note(h.Name, "joined as %s", tail(s.ID()))
		h.up(desk, s)
		select {
		case <-s.Done():
			h.w.sim.Note(h.Name, "%v", s.Err())
		case <-ctx.Done():
		}
		if err := s.Leave(joining); err != nil {
			h.w.sim.Note(h.Name, "leave: %v", err)
		}
	}
}

func (h *host) up(desk *Desk, s *heartbeat.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.desk, h.session = desk, s
}

func (h *host) now() (*Desk, *heartbeat.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.desk, h.session
}

func (h *host) sessions() []*heartbeat.Session {
	if _, s := h.now(); s != nil {
		return []*heartbeat.Session{s}
	}
	return nil
}

func (h *host) counts(kind Kind) (c Counts) {
	if desk, _ := h.now(); desk != nil {
		c = desk.Counts(kind)
	}
	return c
}

// failOver lets another server take over in some worlds, which has not all that was committed.
func (w *world) failOver() {
	r := w.sim.Rand("failover")
	time.Sleep(time.Second + upTo(r, chaos.Seconds()/2))
	if r.IntN(4) > 0 {
		return
	}
	snapshot := w.sim.Snapshot()
	time.Sleep(upTo(r, 1))
	w.saw(sawFailover)
	w.sim.FailOver(snapshot, func(dbtest.Query) {})
}

// operate is what somebody at the keyboard does: asks for rights to be released, and for members
// to be drained and forgotten.
func (w *world) operate() {
	r := w.sim.Rand("operator")
	for range r.IntN(6) {
		h := w.hosts[r.IntN(len(w.hosts))]
		time.Sleep(upTo(r, chaos.Seconds()/3))
		_, s := h.now()
		if w.sim.Since() >= chaos || s == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Second)
		switch r.IntN(5) {
		case 0:
			if heartbeat.Drain(ctx, h.DB, s.ID()) == nil {
				w.saw(sawDrain)
				time.Sleep(upTo(r, 1))
				_ = heartbeat.Undrain(ctx, h.DB, s.ID()) // it is lost meanwhile, or drains on
			}
		case 1:
			if heartbeat.Forget(ctx, h.DB, s.ID()) == nil {
				w.saw(sawForget)
			}
		default:
			err := lock.ForceRelease(ctx, h.DB, contended, "somebody", "to see", 2*time.Second)
			w.sim.Note(h.Name, "asked for a release: %v", err)
		}
		cancel()
	}
}

// undrain sees to it that nobody drains for ever, as its clients would wait for ever to lead.
func (w *world) undrain() {
	time.Sleep(chaos)
	for {
		for _, h := range w.hosts {
			if _, s := h.now(); s != nil && s.Draining() {
				_ = heartbeat.Undrain(w.t.Context(), h.DB, s.ID())
			}
		}
		select {
		case <-time.After(time.Second):
		case <-w.over:
			return
		}
	}
}

// upTo is a time up to s seconds, of the seed's.
func upTo(r *rand.Rand, s float64) time.Duration {
	return time.Duration(r.Float64() * s * float64(time.Second))
}

// tail is the part of an id by which people tell one from another.
func tail(id string) string { return id[max(0, len(id)-4):] }
