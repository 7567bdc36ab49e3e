package heartbeat

import (
	"database/sql/driver"
	"time"

	"github.com/coordd/coordd/internal/dbtest"
)

const (
	simRows   = `select member_id, seq, state, ttl_ms from coordd_heartbeats`
	simEvents = `select h.member_id, h.state,
			sum(e.action = 'joined'), sum(e.action = 'died'), sum(e.action = 'left')
		from coordd_heartbeats h left join coordd_events e on e.member_id = h.member_id
		group by h.member_id, h.state`
)

// simRow is a row of coordd_heartbeats as the latest commit left it.
type simRow struct {
	seq    int64
	state  State
	ttl    time.Duration
	beaten time.Duration // when seq last moved
}

// slack is what two clocks of different rates may disagree about.
const slack = 0.975

// committed checks what a commit has changed, before anything else is committed.
func (w *world) committed(c dbtest.Commit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.sim.Since()
	found := c.Query(simRows)
	if len(found) < len(w.rows) {
		w.sim.Violated("a row is gone: got %d, want %d at least", len(found), len(w.rows))
	}
	for _, f := range found {
		id := f[0].(string)
		before, known := w.rows[id]
		row := simRow{seq: f[1].(int64), state: State(f[2].(string)), ttl: time.Duration(f[3].(int64)) * time.Millisecond, beaten: before.beaten}
		if row.seq != before.seq {
			row.beaten = now
		}
		if known && row != before {
			w.checkFinal(id, before, row)
		}
		if row.state == Dead && !before.state.Ended() {
			w.seen[sawDeath]++
			w.sim.Note(c.By.Name, "declares %s dead, on what it saw at %.3f", tail(id), c.Marked.Seconds())
			w.checkDeath(id, row, now, c.Marked)
		}
		if row.state != before.state {
			w.checkEvents(c)
		}
		w.rows[id] = row
	}
}

// checkFinal: a state that ended is not left again, and its beats are over (M4).
func (w *world) checkFinal(id string, before, row simRow) {
	moved := row.seq != before.seq
	if before.state.Ended() || row.seq < before.seq || before.state == Condemned && (moved || row.state != Dead) {
		w.sim.Violated("%s was %s at seq %d and is %s at %d", tail(id), before.state, before.seq, row.state, row.seq)
	}
}

// checkDeath: nobody dies who has beaten within a window (M1) or is valid, and nobody for an
// outage (M3).
func (w *world) checkDeath(id string, row simRow, now, marked time.Duration) {
	s := w.sessions[id]
	if s != nil && s.Valid() {
		w.sim.Violated("%s was declared dead while valid for another %v", tail(id), s.Stats().Remaining)
	}
	least := time.Duration(slack * float64(window(row.ttl)))
	if silent := now - row.beaten; silent < least {
		w.sim.Violated("%s was declared dead %v after a beat, want %v at least", tail(id), silent, least)
	}
	if w.settled && s != nil && !s.over {
		w.sim.Violated("%s was declared dead though nothing had gone wrong for long", tail(id))
	}
	// Who decides in an outage, or in the window after it, may count neither the outage nor what
	// was before; but an outage is only known for one when half of a TTL has gone.
	for _, o := range w.sim.Outages() {
		from, to := o.From+row.ttl/2+row.ttl/50, o.To
		if from < to && marked > from && marked < to+least {
			w.sim.Violated("%s was declared dead on a look at %.3f, within a window (%v) of the outage until %.3f", tail(id), marked.Seconds(), least, to.Seconds())
		}
	}
}

// checkValid: who is dead is not valid, however it came to think so.
func (w *world) checkValid() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sessions {
		w.checkOne(s)
	}
}

// began checks the sessions of a host as it begins a statement: who thaws, takes an old reply
// for a new one and asks again is not wrong for long.
func (w *world) began(h *dbtest.Host, _ string, _ []driver.NamedValue) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.servers {
		if s.host == h && s.up != nil {
			w.checkOne(s.up)
		}
	}
}

func (w *world) checkOne(s *simSession) {
	valid := s.Valid()
	if state := w.rows[s.id].state; valid && state.Ended() {
		w.sim.Violated("%s is valid for another %v, and is %s", tail(s.id), s.Stats().Remaining, state)
	}
	if !valid && !s.over && s.Err() == nil && !s.suspended {
		s.suspended = true
		w.seen[sawSuspension]++
	} else if valid && s.suspended {
		s.suspended = false
		w.seen[sawResumption]++
	}
}

// settle is called when nothing has gone wrong for so long that everybody has beaten. From
// here on who is valid stays it.
func (w *world) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled = true
}

// checkEnd: everything has come right.
func (w *world) checkEnd() {
	w.mu.Lock()
	defer w.mu.Unlock()
	living := 0
	for _, s := range w.servers {
		if s.up != nil {
			living++
		} else if !s.done {
			w.sim.Violated("%s has not come up", s.host.Name)
		}
	}
	for id, row := range w.rows {
		s := w.sessions[id]
		running := s != nil && !s.over
		switch {
		case !row.state.Ended() && !running && living > 0:
			w.sim.Violated("%s has gone, and nobody has declared it dead", tail(id)) // M2
		case !row.state.Ended() && running && (!s.Valid() || s.Err() != nil):
			w.sim.Violated("%s is %s, and has not resumed: valid %v, error %v", tail(id), row.state, s.Valid(), s.Err()) // M3
		case row.state.Ended() && running:
			w.sim.Violated("%s is %s and does not know it", tail(id), row.state)
		}
	}
}

// checkEvents: each change has brought one event, in the same commit (M4).
func (w *world) checkEvents(c dbtest.Commit) {
	for _, e := range c.Query(simEvents) {
		id, state := e[0].(string), State(e[1].(string))
		want := [3]any{int64(1), int64(0), int64(0)}
		switch state {
		case Dead:
			want[1] = int64(1)
		case Left:
			want[2] = int64(1)
		}
		if got := [3]any(e[2:]); got != want {
			w.sim.Violated("%s is %s: got %v events joined, died and left, want %v", tail(id), state, got, want)
		}
	}
}
