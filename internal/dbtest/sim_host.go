package dbtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coordd/coordd"
)

// Host is a machine of a Sim. All that runs on it shares its faults and its clock.
type Host struct {
	Name string
	DB   *coordd.DB // of a first process

	sim   *Sim
	scale time.Duration
	skew  float64

	mu        sync.Mutex
	processes []*Process
	counts    map[string]uint64 // of statements, by wording
	marked    time.Duration
	read      time.Duration // when the clock was last read
}

// Process is one process of a host. It has a pool of its own, and can be killed.
type Process struct {
	DB *coordd.DB

	host   *Host
	killed atomic.Bool
}

func newHost(s *Sim, name string, scale time.Duration, r *rand.Rand) *Host {
	h := &Host{Name: name, sim: s, scale: scale, skew: (2*r.Float64() - 1) / 100, counts: map[string]uint64{}}
	h.DB = h.Start().DB
	return h
}

// Start starts a process.
func (h *Host) Start() *Process {
	p := &Process{host: h}
	p.DB = coordd.SQLite(sql.OpenDB(simConnector{p}))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.processes = append(h.processes, p)
	return p
}

// Kill ends a process as a crash does: it sends and hears nothing any more. What it has sent is
// executed all the same.
func (p *Process) Kill() { p.killed.Store(true) }

// close ends all processes.
func (h *Host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.processes {
		p.DB.Pool().Close()
	}
}

// Now is the host's own clock, which is up to 1 % fast or slow.
func (h *Host) Now() time.Duration { return h.at(h.sim.Since()) }

// at is what the host's clock shows at some time since the world began.
func (h *Host) at(since time.Duration) time.Duration {
	return since + time.Duration(float64(since)*h.skew)
}

// Clock is the host's own clock as its processes see it: while they are frozen it almost stands
// still, as nothing runs that could read it, and then it leaps. Each reading takes a moment, lest
// somebody waits for ever for the next one.
func (h *Host) Clock() time.Duration {
	since := h.sim.Since()
	e := h.struck(Frozen, Paused)
	h.mu.Lock()
	defer h.mu.Unlock()
	if e != nil {
		since = min(since, max(e.From, h.read)+100*time.Microsecond)
	}
	h.read = max(h.read, since)
	return h.at(h.read)
}

// Frozen says whether the host's processes stand still.
func (h *Host) Frozen() bool { return h.struck(Frozen, Paused) != nil }

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
	by   *Process
	stmt string
	r    *rand.Rand
	in   bool // a transaction: it must not be held up for longer than its context lasts
}

func (by *Process) passage(stmt string, args []driver.NamedValue, inTransaction bool) *passage {
	h := by.host
	h.sim.mu.Lock()
	h.sim.statement++
	h.sim.note(h.Name, "%s", short(stmt))
	h.sim.mu.Unlock()
	if h.sim.OnStatement != nil {
		h.sim.OnStatement(h, stmt, args)
	}
	return &passage{h, by, stmt, h.draw(stmt), inTransaction}
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
	if p.by.killed.Load() {
		return ErrReplyLost
	}
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
