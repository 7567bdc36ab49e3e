package dbtest

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/coordd/coordd"
)

// Host is a machine of a Sim. All that runs on it shares its faults, its pool and its clock.
type Host struct {
	Name string
	DB   *coordd.DB

	sim   *Sim
	scale time.Duration
	skew  float64

	mu     sync.Mutex
	counts map[string]uint64 // of statements, by wording
	marked time.Duration
}

func newHost(s *Sim, name string, scale time.Duration, r *rand.Rand) *Host {
	h := &Host{Name: name, sim: s, scale: scale, skew: (2*r.Float64() - 1) / 100, counts: map[string]uint64{}}
	h.DB = coordd.SQLite(sql.OpenDB(simConnector{h}))
	return h
}

// Now is the host's own clock, which is up to 1 % fast or slow.
func (h *Host) Now() time.Duration {
	since := h.sim.Since()
	return since + time.Duration(float64(since)*h.skew)
}

// Stand holds up whoever calls it for as long as the host is frozen. Who holds a mutex must
// not call it, as time would stand still with the next who waits for that.
func (h *Host) Stand() {
	for stood := false; ; stood = true {
		e := h.struck(Frozen, Paused)
		if e == nil {
			if stood {
				h.mark() // what it does now it does on what it knew before
			}
			return
		}
		h.sim.hit(h, e.Fault, "the clock is about to be read")
		time.Sleep(e.To - h.sim.Since())
	}
}

func (h *Host) mark() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marked = h.sim.Since()
}

func (h *Host) lastMarked() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.marked
}

// draw is what is random about one statement: the seed's, for the nth of this wording on this
// host, whatever others run meanwhile.
func (h *Host) draw(stmt string) *rand.Rand {
	h.mu.Lock()
	h.counts[stmt]++
	n := h.counts[stmt]
	h.mu.Unlock()
	return rand.New(rand.NewPCG(h.sim.Seed+n<<32, hash(h.Name+stmt)))
}

// struck is the episode of one of these faults that this host is in, or nil.
func (h *Host) struck(faults ...Fault) *Episode {
	now := h.sim.Since()
	for i := range h.sim.plan {
		e := &h.sim.plan[i]
		if e.From > now {
			break // they are in the order of their beginnings
		}
		if now >= e.To || e.Host != nil && e.Host != h {
			continue
		}
		for _, f := range faults {
			if e.Fault == f {
				return e
			}
		}
	}
	return nil
}

// A passage is one statement on its way to the server and back.
type passage struct {
	host *Host
	stmt string
	r    *rand.Rand
	in   bool // a transaction: it must not be held up for longer than its context lasts
}

func (h *Host) passage(stmt string, inTransaction bool) *passage {
	h.sim.mu.Lock()
	h.sim.statement++
	h.sim.note(h.Name, "%s", short(stmt))
	h.sim.mu.Unlock()
	if h.sim.OnStatement != nil {
		h.sim.OnStatement(h)
	}
	return &passage{h, stmt, h.draw(stmt), inTransaction}
}

func (p *passage) reads() bool { return strings.HasPrefix(p.stmt, "select") }

func (p *passage) hit(e *Episode) { p.host.sim.hit(p.host, e.Fault, p.stmt) }

// chance says yes to one statement in n that meets the fault.
func (p *passage) chance(n int, f Fault) *Episode {
	e := p.host.struck(f)
	if e == nil || p.r.IntN(n) != 0 {
		return nil
	}
	p.hit(e)
	return e
}

// travel takes its time, also where nothing is wrong.
func (p *passage) travel(ctx context.Context) error {
	reach := p.host.scale / 500
	if e := p.host.struck(Slow); e != nil {
		p.hit(e)
		reach = e.Reach
	}
	return Pause(ctx, time.Duration(p.r.Int64N(int64(reach))))
}

// cross goes one way: to the server, or back from there.
func (p *passage) cross(ctx context.Context) error {
	if err := p.travel(ctx); err != nil {
		return err
	}
	for {
		e := p.obstacle()
		if e == nil {
			return nil
		}
		p.hit(e)
		left := e.To - p.host.sim.Since()
		switch {
		case e.Fault == Frozen || e.Fault == Paused:
			if err := p.freeze(ctx, left); err != nil {
				return err
			}
		case !e.Hangs || e.Fault == ReadOnly:
			return ErrReplyLost
		default:
			if err := Pause(ctx, left); err != nil {
				return err
			}
		}
	}
}

func (p *passage) obstacle() *Episode {
	faults := []Fault{Frozen, Paused, Cut, Away, Stalled, ReadOnly}
	if p.reads() && !p.in {
		faults = faults[:4]
	}
	return p.host.struck(faults...)
}

// freeze waits for the thaw. What was under way finds then both its answer and the end of its
// context, and may take either.
func (p *passage) freeze(ctx context.Context, d time.Duration) error {
	if p.in {
		return Pause(ctx, d)
	}
	time.Sleep(d)
	if p.r.IntN(2) == 0 || p.reads() { // rows end with their context
		return ctx.Err()
	}
	return nil
}
