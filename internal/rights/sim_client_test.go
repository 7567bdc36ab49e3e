package rights

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coordd/coordd/lock"
)

// contended is what all want: a lock, and an election, of this name.
const contended = "x"

// mostTTL is the longest that clients ask for.
const mostTTL = 3 * time.Second

// client is a process that takes rights, one after the other. It knows what it is told, and its own
// clock, which is up to 1 % fast or slow.
type client struct {
	w    *world
	name string
	r    *rand.Rand
	skew float64
	n    int
}

func newClient(w *world, name string) *client {
	r := w.sim.Rand(name)
	return &client{w: w, name: name, r: r, skew: (2*r.Float64() - 1) / 100}
}

// now is its clock, and when what that shows some time will be, by the world's.
func (c *client) now() time.Duration { return c.at(c.w.sim.Since()) }
func (c *client) at(t time.Duration) time.Duration {
	return t + time.Duration(float64(t)*c.skew)
}
func (c *client) when(t time.Duration) time.Duration {
	return time.Duration(float64(t) / (1 + c.skew))
}

func (c *client) note(what string, args ...any) { c.w.sim.Note(c.name, what, args...) }

// run takes rights while things go wrong, and then one more, which it must get.
func (c *client) run() {
	for c.w.sim.Since() < chaos && c.w.sim.Verdict() == "" {
		c.turn()
		time.Sleep(upTo(c.r, 0.5))
	}
	time.Sleep(time.Second)
	for !c.turn() && c.w.sim.Since() < enough+time.Second && c.w.sim.Verdict() == "" {
		time.Sleep(100 * time.Millisecond)
	}
}

// turn asks for one right of one daemon, and works under it. It says whether it had it.
func (c *client) turn() (had bool) {
	c.n++
	ask := Ask{Key: Key{Lock, contended, fmt.Sprintf("%s.%d", c.name, c.n)}, By: me}
	if c.r.IntN(4) == 0 {
		ask.Kind = Election
	}
	ask.TTL = LeastTTL + upTo(c.r, (mostTTL-LeastTTL).Seconds())
	if c.r.IntN(3) > 0 || c.w.sim.Since() >= chaos {
		ask.Wait = upTo(c.r, 3)
	}
	var cable chan struct{}
	if c.r.IntN(3) == 0 {
		cable = make(chan struct{})
		ask.Tie = cable
	}
	h := c.w.hosts[c.r.IntN(len(c.w.hosts))]
	g, sent, ok := c.acquire(h, ask)
	if ok {
		c.hold(h, ask, g, sent)
		had = true
	}
	c.giveUp(h, ask, cable)
	return had
}

// acquire asks until it has the right, or has no patience any more.
func (c *client) acquire(h *host, ask Ask) (g Grant, sent time.Duration, ok bool) {
	for range 1 + c.r.IntN(6) {
		if c.r.IntN(10) == 0 {
			h = c.w.hosts[c.r.IntN(len(c.w.hosts))] // and forgets that it has asked another one
		}
		sent = c.now()
		g, err := c.call(h, ask)
		if err == nil {
			return g, sent, true
		}
		var busy *BusyError
		var elsewhere *ElsewhereError
		switch {
		case errors.As(err, &elsewhere):
			c.w.saw(sawElsewhere)
		case errors.As(err, &busy) && busy.Queued:
			c.w.saw(sawQueued)
		case errors.Is(err, ErrNoSession):
			c.w.saw(sawNoSession)
		}
		time.Sleep(upTo(c.r, 0.3))
	}
	return g, sent, false
}

// hold renews a right for a while, and counts on it for as long as it may.
func (c *client) hold(h *host, ask Ask, g Grant, sent time.Duration) {
	c.w.saw(sawGrant)
	ask.Token, ask.Wait = g.Token, 0
	deadline := sent + g.Valid
	if deadline <= c.now() {
		c.w.saw(sawTurn)
	}
	end := c.w.sim.Since() + upTo(c.r, 4)
	if c.w.sim.Since() >= chaos {
		end = c.w.sim.Since() + upTo(c.r, 0.3)
	}
	first := true
	for {
		if c.now() < deadline {
			c.w.believes(c, ask.Kind, belief{g.Token, c.when(deadline)})
		} else if !first {
			c.w.saw(sawExpired)
			if c.r.IntN(2) == 0 {
				return
			}
		}
		first = false
		if c.w.sim.Since() >= end {
			return
		}
		if c.now() < deadline {
			time.Sleep(min(upTo(c.r, g.Valid.Seconds()), 500*time.Millisecond))
		}
		again := c.now()
		renewed, err := c.call(h, ask)
		var lost *LostError
		switch {
		case err == nil:
			c.w.saw(sawRenewal)
			if renewed.Token != g.Token {
				c.w.sim.Violated("%s renewed token %d, and has %d", c.name, g.Token, renewed.Token)
			}
			deadline = max(deadline, again+renewed.Valid)
		case errors.As(err, &lost):
			c.w.saw(sawLost)
			var by *lock.RequestedError
			if errors.As(err, &by) {
				c.w.saw(sawRequested)
			}
			if c.r.IntN(2) == 0 {
				time.Sleep(max(0, c.when(deadline)-c.w.sim.Since())) // it may count on what it was promised
			}
			return
		}
	}
}

// giveUp stops, and says so, or closes its connection, or says nothing.
func (c *client) giveUp(h *host, ask Ask, cable chan struct{}) {
	c.w.stops(c, ask.Kind)
	switch c.r.IntN(3) {
	case 0:
		c.w.saw(sawSilent)
	case 1:
		if cable != nil {
			c.w.saw(sawTied)
			close(cable)
		}
	default:
		c.w.saw(sawGivenUp)
		_, _ = c.request(func() (Grant, error) { // it may never be heard
			desk, _ := h.now()
			if desk == nil {
				return Grant{}, errUnheard
			}
			return Grant{}, desk.Delete(c.w.t.Context(), ask.Key, me, 0)
		})
	}
}

var errUnheard = errors.New("no answer came")

func (c *client) call(h *host, ask Ask) (Grant, error) {
	g, err := c.request(func() (Grant, error) {
		h.Stand()
		desk, _ := h.now()
		if desk == nil {
			return Grant{}, errUnheard
		}
		g, err := desk.Put(c.w.t.Context(), ask)
		h.Stand()
		if now, _ := h.now(); now != desk {
			return Grant{}, errUnheard // it has crashed with the answer
		}
		return g, err
	})
	c.note("%s of %s: %s %q (token %d, ttl %v, wait %v): token %d, valid %v, %v", ask.Kind, tail(ask.Client), h.Name, ask.Name, ask.Token, ask.TTL, ask.Wait, g.Token, g.Valid, err)
	return g, err
}

// request is a network: what goes through it is late, or lost on its way there, or back. Who has
// no patience does not hear the answer, and what it asked for is done all the same.
func (c *client) request(do func() (Grant, error)) (Grant, error) {
	type reply struct {
		g   Grant
		err error
	}
	there, back := c.delay(), c.delay()
	lost, unheard := c.r.IntN(12) == 0, c.r.IntN(12) == 0
	patience := time.After(200*time.Millisecond + upTo(c.r, 4))
	answer := make(chan reply, 1)
	gaveUp := make(chan struct{})
	c.w.zombies.Go(func() {
		time.Sleep(there)
		if lost {
			return
		}
		select {
		case <-gaveUp:
			c.w.saw(sawZombie)
		default:
		}
		g, err := do()
		time.Sleep(back)
		if unheard && err == nil {
			c.w.saw(sawUnheard)
			return
		}
		answer <- reply{g, err}
	})
	select {
	case a := <-answer:
		return a.g, a.err
	case <-patience:
		close(gaveUp)
		return Grant{}, errUnheard
	}
}

func (c *client) delay() time.Duration {
	if c.r.IntN(8) == 0 {
		return upTo(c.r, 2.5)
	}
	return upTo(c.r, 0.03)
}
