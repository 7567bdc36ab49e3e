package heartbeat

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/dbtest"
)

const (
	chaos = 16 * time.Second      // for this long things go wrong
	tick  = 50 * time.Millisecond // between two looks at who is valid
)

var simTTLs = []time.Duration{1200 * time.Millisecond, 1500 * time.Millisecond, 2 * time.Second, 3 * time.Second, 3 * time.Second, 6 * time.Second}

// world is one seed.
type world struct {
	t       *testing.T
	sim     *dbtest.Sim
	servers []*server
	over    chan struct{} // closed when the servers are to end
	longest time.Duration // of the TTLs

	// Of the checks.
	mu       sync.Mutex
	sessions map[string]*simSession // by id
	rows     map[string]simRow      // by id, as of the latest commit
	settled  bool                   // from here on nobody dies who is valid
	seen     map[string]int
}

// What a run should have seen.
const (
	sawJoin       = "joined"
	sawCrash      = "crashed"
	sawLeave      = "left"
	sawDeath      = "died"
	sawLoss       = "lost"
	sawSuspension = "suspended"
	sawResumption = "resumed"
	sawOrder      = "ordered"
)

// simSession is a session, and what its process has done with it.
type simSession struct {
	*Session
	over      bool // crashed, left or lost and noticed
	suspended bool
}

// server is one host's process, one incarnation after the other.
type server struct {
	w    *world
	host *dbtest.Host
	ttl  time.Duration
	r    *rand.Rand
	up   *simSession // nil while there is none
	done bool        // it was not to come back

	first bool // always comes back, so that somebody is there
	hasty bool // ends when it is suspended
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, over: make(chan struct{}), sessions: map[string]*simSession{}, rows: map[string]simRow{}, seen: map[string]int{}}
	r := rand.New(rand.NewPCG(seed, 0))
	ttls := make([]time.Duration, 2+r.IntN(2)+r.IntN(2))
	for i := range ttls {
		ttls[i] = simTTLs[r.IntN(len(simTTLs))]
		w.longest = max(w.longest, ttls[i])
	}
	w.sim = dbtest.NewSim(t, seed, chaos, ttls)
	w.sim.Marked = sqliteLook
	w.sim.OnCommit, w.sim.OnStatement = w.committed, w.began
	for i, host := range w.sim.Hosts {
		w.servers = append(w.servers, &server{w: w, host: host, ttl: ttls[i], r: w.sim.Rand(host.Name), first: i == 0, hasty: r.IntN(4) == 0})
	}
	return w
}

// run lets everything go wrong, then lets it come right.
func (w *world) run() {
	var running sync.WaitGroup
	for _, s := range w.servers {
		running.Go(s.run)
	}
	running.Go(w.operate)
	// A beat under way may take its timeout, the next one comes half a beat later.
	w.watch(chaos + w.longest*3/4)
	w.settle()
	w.watch(chaos + 3*w.longest)
	w.checkEnd()
	close(w.over)
	running.Wait()
	w.sim.Close()
}

// watch looks at who is valid until some time, or until a promise was broken.
func (w *world) watch(until time.Duration) {
	for w.sim.Since() < until && w.sim.Verdict() == "" {
		time.Sleep(tick)
		w.checkValid()
	}
}

// run is the life of a server: it joins, and joins again when its session was lost, until
// it crashes or leaves; and comes back, or not.
func (s *server) run() {
	if !s.pause(upTo(s.r, 3)) {
		return
	}
	for {
		session := s.join()
		if session == nil {
			return
		}
		crash, back := s.r.IntN(3) > 0, s.first || s.r.IntN(3) > 0
		if over := s.live(session); over {
			s.end(session, "", session.kill)
			return
		}
		switch {
		case session.Err() != nil:
			s.end(session, sawLoss, func() { session.Leave(s.w.t.Context()) })
			continue
		case crash && !s.hasty:
			s.end(session, sawCrash, session.kill)
		default:
			s.host.Stand()
			s.end(session, sawLeave, func() { session.Leave(s.w.t.Context()) })
		}
		if !back || !s.pause(upTo(s.r, 5)) {
			s.w.mu.Lock()
			s.done = true
			s.w.mu.Unlock()
			return
		}
	}
}

// live waits for the end of a session, or for the moment at which its server ends it; or until
// all is over. Most live for as long as they can.
func (s *server) live(session *simSession) (over bool) {
	var planned, tired <-chan time.Time
	if life := upTo(s.r, 60); s.w.sim.Since()+life < chaos {
		planned = time.After(life)
	}
	for {
		select {
		case <-session.Done():
			return false
		case <-s.w.over:
			return true
		case <-planned:
			return false
		case <-tired:
			return false
		case <-time.After(tick):
		}
		if s.hasty && tired == nil && !session.Valid() && s.w.sim.Since() < chaos {
			tired = time.After(upTo(s.r, s.ttl.Seconds()/2))
		}
	}
}

// pause waits, but not into the quiet time, and says false if all is over.
func (s *server) pause(d time.Duration) bool {
	select {
	case <-time.After(min(d, max(100*time.Millisecond, chaos-s.w.sim.Since()))):
		return true
	case <-s.w.over:
		return false
	}
}

// join tries until it succeeds, or returns nil when all is over.
func (s *server) join() *simSession {
	for {
		// The clock is read when the process runs: where it is frozen it stands there, unless
		// it holds the session's mutex, as time would then stand still for all.
		var joined atomic.Pointer[Session]
		now := func() time.Duration {
			if session := joined.Load(); session != nil && session.mu.TryLock() {
				session.mu.Unlock()
				s.host.Stand()
			}
			return s.host.Now()
		}
		session, err := Join(clock.With(s.w.t.Context(), now), s.host.DB, Config{Name: s.host.Name, TTL: s.ttl})
		if err == nil {
			joined.Store(session)
			return s.begin(session)
		}
		s.w.sim.Note(s.host.Name, "join: %v", err)
		if !s.pause(upTo(s.r, 1)) {
			return nil
		}
	}
}

func (s *server) begin(session *Session) *simSession {
	s.w.sim.Note(s.host.Name, "joined as %s", tail(session.id))
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.seen[sawJoin]++
	s.up = &simSession{Session: session}
	s.w.sessions[session.id] = s.up
	return s.up
}

// end ends a session; how is what the run has seen by it, if anything.
func (s *server) end(session *simSession, how string, end func()) {
	s.w.sim.Note(s.host.Name, "%s: %s", tail(session.id), how)
	s.w.mu.Lock()
	if how != "" {
		s.w.seen[how]++
	}
	session.over, s.up = true, nil
	s.w.mu.Unlock()
	end()
}

// operate is what somebody at the keyboard does: asks for members to be drained, and forgotten.
func (w *world) operate() {
	r := w.sim.Rand("operator")
	for range r.IntN(4) {
		host := w.sim.Hosts[r.IntN(len(w.sim.Hosts))]
		time.Sleep(upTo(r, chaos.Seconds()/2))
		if w.sim.Since() >= chaos {
			return
		}
		w.mu.Lock()
		var id string
		if s := w.servers[r.IntN(len(w.servers))]; s.up != nil {
			id = s.up.id
		}
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		order := []func(context.Context, *coordd.DB, string, ...By) error{Drain, Undrain, Forget}[r.IntN(3)]
		if err := order(ctx, host.DB, id); err == nil {
			w.mu.Lock()
			w.seen[sawOrder]++
			w.mu.Unlock()
		}
		cancel()
	}
}

// upTo is a time up to s seconds, of the seed's.
func upTo(r *rand.Rand, s float64) time.Duration {
	return time.Duration(r.Float64() * s * float64(time.Second))
}

// tail is the part of an id by which people tell one from another.
func tail(id string) string { return id[max(0, len(id)-4):] }
