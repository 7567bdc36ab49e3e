package dbtest

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// Fault is a way in which things go wrong.
type Fault string

// What befalls one host.
const (
	Slow      Fault = "slow"       // statements and their replies take long
	ReplyLost Fault = "reply lost" // executed, and not answered
	Late      Fault = "late"       // failed, and executed some time after
	Cut       Fault = "cut"        // the host reaches nothing
	Frozen    Fault = "frozen"     // the host's processes stand still, its clock does not
)

// What befalls everybody.
const (
	Away     Fault = "away"      // the database is gone
	Stalled  Fault = "stalled"   // reads work, and writes wait
	ReadOnly Fault = "read-only" // reads work, and writes fail
	Paused   Fault = "paused"    // all hosts are frozen
)

// Faults are all that there are.
var Faults = []Fault{Slow, ReplyLost, Late, Cut, Frozen, Away, Stalled, ReadOnly, Paused}

// Episode is one fault for a time.
type Episode struct {
	Fault    Fault
	Host     *Host // nil: all
	From, To time.Duration
	Reach    time.Duration // how much a delay may be
	Hangs    bool          // statements wait for the end instead of failing at once
}

func (e Episode) String() string {
	who := "all"
	if e.Host != nil {
		who = e.Host.Name
	}
	return fmt.Sprintf("%9.3f  until %.3f: %s %s, reach %v, hangs %v", e.From.Seconds(), e.To.Seconds(), who, e.Fault, e.Reach, e.Hangs)
}

// Outages are the episodes that befall everybody.
func (s *Sim) Outages() (all []Episode) {
	for _, e := range s.plan {
		if e.Host == nil {
			all = append(all, e)
		}
	}
	return all
}

// drawPlan lays out all that goes wrong until quiet.
func drawPlan(r *rand.Rand, quiet time.Duration, hosts []*Host) []Episode {
	p := planner{r: r, quiet: quiet}
	p.add(Cut, hosts[0], between(r, 0.3, 0.7, quiet), between(r, 0.9, 1.4, hosts[0].scale)) // never nothing
	for _, h := range hosts {
		p.trouble(h, hosts[r.IntN(len(hosts))])
	}
	all := []Fault{Away, Stalled, Stalled, ReadOnly, Paused}
	for range r.IntN(4) {
		scale := hosts[r.IntN(len(hosts))].scale
		p.add(all[r.IntN(len(all))], nil, between(r, 0, 1, quiet), between(r, 0.1, 2, scale))
	}
	slices.SortStableFunc(p.plan, func(a, b Episode) int { return cmp.Compare(a.From, b.From) })
	return p.plan
}

type planner struct {
	r     *rand.Rand
	quiet time.Duration
	plan  []Episode
}

func (p *planner) add(f Fault, h *Host, from, length time.Duration) (to time.Duration) {
	e := Episode{Fault: f, Host: h, From: from, To: min(from+length, p.quiet), Hangs: p.r.IntN(2) == 0}
	if h != nil {
		e.Reach = between(p.r, 0.02, 0.5, h.scale)
	}
	if e.From < e.To {
		p.plan = append(p.plan, e)
	}
	return e.To
}

// trouble befalls one host. It comes in chains, as the worst ones are two that follow at once: a
// reply that took long, and then none any more. Much of it lasts about as long as the host's
// scale, the time after which others may act on its silence; they are often slow just then.
func (p *planner) trouble(h, other *Host) {
	each := []Fault{Slow, Slow, ReplyLost, Late, Cut, Cut, Frozen, Frozen}
	for at := between(p.r, 0.5, 2.5, h.scale); at < p.quiet; at += between(p.r, 0.5, 5, h.scale) {
		for next := true; next; next = p.r.IntN(3) == 0 {
			f, length := each[p.r.IntN(len(each))], between(p.r, 0.1, 1.8, h.scale)
			if p.r.IntN(3) == 0 && f != Slow {
				length = between(p.r, 0.9, 1.4, h.scale)
				p.add(Slow, other, at+length-h.scale/3, h.scale*2/3)
			}
			if f == Frozen {
				p.add(Slow, h, at-h.scale/4, h.scale/4) // so that it freezes between a commit and its reply
			}
			at = p.add(f, h, at, length)
		}
	}
}

// between is a time between two multiples of a scale.
func between(r *rand.Rand, least, most float64, scale time.Duration) time.Duration {
	return time.Duration((least + r.Float64()*(most-least)) * float64(scale))
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}
