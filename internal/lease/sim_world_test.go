package lease_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/lease"
)

const (
	chaos  = 5 * time.Second        // for this long things go wrong
	enough = chaos + 25*time.Second // by then all must have come right
	tick   = 50 * time.Millisecond  // between two looks at who is valid
)

var simTTLs = []time.Duration{1200 * time.Millisecond, 1500 * time.Millisecond, 2 * time.Second}

// simMaxTTL is the longest of them: a quarantine lasts so long and a little more.
const simMaxTTL = `update coordd_meta set value = 2000 where name = 'max_ttl'`

// world is one seed.
type world struct {
	t        *testing.T
	sim      *dbtest.Sim
	ledger   *ledger
	machines []*machine

	life   context.Context // of clients
	finish context.CancelFunc
	over   chan struct{}  // closed when members are to leave
	behind sync.WaitGroup // what crashed processes leave behind
	bell   bell
}

// machine is one host's process, one after the other.
type machine struct {
	w    *world
	host *dbtest.Host
	ttl  time.Duration
	r    *rand.Rand

	first bool // always comes back, so that somebody is there

	mu   sync.Mutex
	up   *member // nil while there is none
	gone bool    // it was not to come back
}

// member is a session, and the clients that work with it.
type member struct {
	*heartbeat.Session
	machine *machine
	process *dbtest.Process
	ctx     context.Context // of its clients
	cancel  context.CancelFunc
	clients sync.WaitGroup

	crashed   atomic.Bool
	lockers   int
	done      atomic.Int64 // lockers that had their last right
	candidate bool
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, over: make(chan struct{})}
	w.life, w.finish = context.WithCancel(t.Context())
	r := rand.New(rand.NewPCG(seed, 0))
	ttls := make([]time.Duration, 2+r.IntN(3)/2)
	for i := range ttls {
		ttls[i] = simTTLs[r.IntN(len(simTTLs))]
	}
	w.sim = dbtest.NewSim(t, seed, chaos, ttls)
	w.sim.Script(simMaxTTL + ";" + simScript)
	w.ledger = newLedger(w.sim, w.bell.ring)
	w.sim.OnCommit, w.sim.OnStatement = w.ledger.committed, w.ledger.began
	for i, host := range w.sim.Hosts {
		w.machines = append(w.machines, &machine{w: w, host: host, ttl: ttls[i], r: w.sim.Rand(host.Name), first: i == 0})
	}
	return w
}

// run lets everything go wrong, then lets it come right.
func (w *world) run() {
	var running sync.WaitGroup
	for _, m := range w.machines {
		running.Go(m.run)
	}
	running.Go(w.operate)
	running.Go(w.failOver)
	w.watch(chaos, nil)
	w.watch(enough, w.unserved)
	w.finish()
	for _, m := range w.members() {
		m.clients.Wait()
	}
	w.watch(w.sim.Since()+2*lease.SweepEvery*time.Second, w.leftOver)
	close(w.over)
	running.Wait()
	w.behind.Wait()
	w.sim.Close()
}

// watch looks at who is valid until some time, or until nothing is wrong any more, which then is
// a must.
func (w *world) watch(until time.Duration, wrong func() string) {
	for w.sim.Verdict() == "" {
		w.ledger.look()
		what := ""
		if wrong != nil {
			if what = wrong(); what == "" {
				return
			}
		}
		if w.sim.Since() >= until {
			if wrong != nil {
				w.sim.Violated("%s", what)
			}
			return
		}
		time.Sleep(tick)
	}
}

// members are those that run.
func (w *world) members() (all []*member) {
	for _, m := range w.machines {
		m.mu.Lock()
		if m.up != nil {
			all = append(all, m.up)
		}
		m.mu.Unlock()
	}
	return all
}

// unserved says who has not got yet what he waits for.
func (w *world) unserved() string {
	for _, m := range w.machines {
		m.mu.Lock()
		away := m.up == nil && !m.gone
		m.mu.Unlock()
		if away {
			return m.host.Name + " has not come up"
		}
	}
	candidates := false
	for _, m := range w.members() {
		if m.done.Load() < int64(m.lockers) {
			return tail(m.ID()) + " waits for a right, and does not get it"
		}
		candidates = candidates || m.candidate && !m.Draining()
	}
	if candidates && !w.ledger.led() {
		return "nobody is elected"
	}
	return ""
}

// leftOver says what those who run still have, when they have given back everything.
func (w *world) leftOver() string {
	for _, m := range w.members() {
		if what := w.ledger.has(m.ID()); what != "" {
			return tail(m.ID()) + " has given back everything, and the database has for it " + what
		}
		if grants, places := lease.Known(m.Session); grants+places > 0 {
			return tail(m.ID()) + " has given back everything, and knows of something"
		}
	}
	return ""
}

// run is the life of a machine: a process joins, works, and joins again when its session was
// lost, until it crashes or leaves; and another comes after it, or not.
func (m *machine) run() {
	if !m.pause(upTo(m.r, 1)) {
		return
	}
	p := m.start()
	for {
		s := m.join(p)
		if s == nil {
			return
		}
		back := m.first || m.r.IntN(3) > 0
		if over := m.live(s); over {
			m.leave(s, "")
			return
		}
		switch {
		case s.Err() != nil:
			m.leave(s, sawLoss)
			if m.r.IntN(2) == 0 {
				p = m.start()
			}
			continue
		case m.r.IntN(2) == 0:
			m.crash(s)
		default:
			m.host.Stand()
			m.leave(s, sawLeave)
		}
		p = m.start()
		if !back || !m.pause(upTo(m.r, 3)) {
			m.mu.Lock()
			m.gone = true
			m.mu.Unlock()
			return
		}
	}
}

// start starts a process that hears what others free, or hears nothing, or knows that it hears
// nothing.
func (m *machine) start() *dbtest.Process {
	p := m.host.Start()
	switch m.r.IntN(3) {
	case 0:
		p.DB.Listener = &m.w.bell
	case 1:
		p.DB.Listener = new(bell)
	}
	return p
}

// live waits for the end of a session, or for the moment at which its machine ends it, or until
// all is over. Most live for as long as they can.
func (m *machine) live(s *member) (over bool) {
	var planned <-chan time.Time
	if life := upTo(m.r, 2.5*chaos.Seconds()); m.w.sim.Since()+life < chaos {
		planned = time.After(life)
	}
	select {
	case <-s.Done():
		return false
	case <-planned:
		return false
	case <-m.w.over:
		return true
	}
}

// pause waits, but not into the quiet time, and says false if all is over.
func (m *machine) pause(d time.Duration) bool {
	select {
	case <-time.After(min(d, max(100*time.Millisecond, chaos-m.w.sim.Since()))):
		return true
	case <-m.w.over:
		return false
	}
}

// join tries until it succeeds, or returns nil when all is over.
func (m *machine) join(p *dbtest.Process) *member {
	ctx := clock.With(m.w.t.Context(), m.host.Clock)
	for {
		session, err := heartbeat.Join(ctx, p.DB, heartbeat.Config{Name: m.host.Name, TTL: m.ttl})
		if err == nil {
			return m.begin(session, p)
		}
		m.w.sim.Note(m.host.Name, "join: %v", err)
		if !m.pause(upTo(m.r, 0.5)) {
			return nil
		}
	}
}

func (m *machine) begin(session *heartbeat.Session, p *dbtest.Process) *member {
	m.w.sim.Note(m.host.Name, "joined as %s", tail(session.ID()))
	s := &member{Session: session, machine: m, process: p, lockers: 2, candidate: m.r.IntN(3) > 0}
	s.ctx, s.cancel = context.WithCancel(m.w.life)
	m.w.ledger.joined(s)
	m.mu.Lock()
	m.up = s
	m.mu.Unlock()
	for range s.lockers {
		c := &client{member: s, r: rand.New(rand.NewPCG(m.r.Uint64(), 0))}
		s.clients.Go(c.lock)
	}
	if s.candidate {
		c := &client{member: s, r: rand.New(rand.NewPCG(m.r.Uint64(), 0))}
		s.clients.Go(c.campaign)
	}
	return s
}

func (m *machine) ended(s *member, how string) {
	m.w.sim.Note(m.host.Name, "%s: %s", tail(s.ID()), how)
	if how != "" {
		m.w.ledger.saw(how)
	}
	m.mu.Lock()
	m.up = nil
	m.mu.Unlock()
}

// leave ends a session in good order, also one that was lost.
func (m *machine) leave(s *member, how string) {
	m.ended(s, how)
	if err := s.Leave(m.w.t.Context()); err != nil {
		m.w.sim.Note(m.host.Name, "leave: %v", err)
	}
	s.cancel()
	s.clients.Wait()
}

// crash ends a process, of which nobody hears any more.
func (m *machine) crash(s *member) {
	m.ended(s, sawCrash)
	s.crashed.Store(true)
	s.process.Kill()
	s.cancel()
	m.w.behind.Go(func() {
		s.Leave(m.w.t.Context())
		s.clients.Wait()
	})
}

// failOver lets another server take over in some worlds, which has not all that was committed;
// in some, another once more.
func (w *world) failOver() {
	r := w.sim.Rand("failover")
	for at := upTo(r, chaos.Seconds()); r.IntN(3) == 0; at = upTo(r, 3) {
		time.Sleep(at)
		if w.sim.Since() > chaos*3/4 || !w.ledger.accepted() {
			return // a database that knows of no history yet is taken for a new one
		}
		snapshot := w.sim.Snapshot()
		time.Sleep(upTo(r, 1.5))
		w.sim.FailOver(snapshot, w.ledger.failedOver)
	}
}

// operate is what somebody at the keyboard does: asks for rights to be released, and for members
// to be drained and forgotten.
func (w *world) operate() {
	r := w.sim.Rand("operator")
	for range r.IntN(6) {
		host := w.sim.Hosts[r.IntN(len(w.sim.Hosts))]
		time.Sleep(upTo(r, chaos.Seconds()/3))
		members := w.members()
		if w.sim.Since() >= chaos || len(members) == 0 {
			return
		}
		s := members[r.IntN(len(members))]
		ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Second)
		switch r.IntN(5) {
		case 0:
			w.order(ctx, host.DB, s, sawDrain, heartbeat.Drain)
		case 1:
			w.order(ctx, host.DB, s, sawCondemned, heartbeat.Forget)
		default:
			ask := lease.Ask{Name: names[r.IntN(len(names))], By: "somebody", Reason: "to see", Within: upTo(r, 2)}
			if r.IntN(3) == 0 {
				ask.To = s.ID()
			}
			err := lease.Release(ctx, host.DB, ask)
			w.sim.Note(host.Name, "asked for %s: %v", ask.Name, err)
		}
		cancel()
	}
}

func (w *world) order(ctx context.Context, db *coordd.DB, s *member, what string, order func(context.Context, *coordd.DB, string, ...heartbeat.By) error) {
	if err := order(ctx, db, s.ID()); err == nil {
		w.sim.Note("operator", "%s: %s", tail(s.ID()), what)
		w.ledger.saw(what)
	}
}

// bell is a coordd.Listener. It rings for those who wait.
type bell struct {
	mu    sync.Mutex
	last  int
	rings map[int]func()
}

func (b *bell) Err() error { return nil }

func (b *bell) Listen(topic string, ring func()) (stop func()) {
	if topic == "" {
		return func() {} // it would wake all, for everything
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rings == nil {
		b.rings = map[int]func(){}
	}
	b.last++
	n := b.last
	b.rings[n] = ring
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.rings, n)
	}
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ring := range b.rings {
		ring()
	}
}

// upTo is a time up to s seconds, of the seed's.
func upTo(r *rand.Rand, s float64) time.Duration {
	return time.Duration(r.Float64() * s * float64(time.Second))
}

// tail is the part of an id by which people tell one from another.
func tail(id string) string { return id[max(0, len(id)-4):] }
