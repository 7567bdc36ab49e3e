package assign

import (
	"maps"
	"slices"
	"time"

	"github.com/coordd/coordd/heartbeat"
)

// state is what a leader has read.
type state struct {
	group   Group
	servers []server // that live, by id
	slots   []slotRow
	loads   []float64 // nil: nobody knows
}

// server is a member that serves the group.
type server struct {
	id, name string
	labels   map[string]string
	state    heartbeat.State
	cpu      float64
	seen     int64
}

// slotRow is a slot with what was true of its owner and its target when it was read.
type slotRow struct {
	slot           int
	owner, target  string // empty: none
	epoch, version int64
	ownerState     heartbeat.State // empty: it is not there any more
	ownerName      string
	targetState    heartbeat.State
}

// lives says whether a member's rights count.
func lives(s heartbeat.State) bool { return s != "" && !s.Ended() }

func (r slotRow) owned() bool { return r.owner != "" && lives(r.ownerState) }
func (r slotRow) aimed() bool { return r.target != "" && lives(r.targetState) }

// memory is what a leader has to know beside what it reads: since when something has been so, by
// its own clock. A new leader begins anew.
type memory struct {
	known    map[string]bool      // members that were gathered, by id
	gather   time.Time            // until then those are gathered that have come; zero: nobody has
	restarts map[string]time.Time // since when an owner's state is restarting, by id
	lags     map[string]lag
}

// lag is the oldest version of the plan that a member has not carried out, and since when.
type lag struct {
	version int64
	since   time.Time
}

func newMemory() *memory {
	return &memory{known: map[string]bool{}, restarts: map[string]time.Time{}, lags: map[string]lag{}}
}

// orders are what a leader wants to be so.
type orders struct {
	own     map[string][]slotEpoch // slots without an owner, by the id of their new one
	aim     map[string][]slotEpoch // slots that are to move, by the id of their target; empty: they stay
	condemn []string               // members that do not carry the plan out
	flying  int                    // slots that are on their way
	leaving bool                   // somebody has slots who does not serve the group any more
	again   time.Time              // when it must be looked at again though nothing has changed; zero: never
}

// slots is how many slots have orders.
func (o orders) slots() (n int64) {
	for _, by := range []map[string][]slotEpoch{o.own, o.aim} {
		for _, some := range by {
			n += int64(len(some))
		}
	}
	return n
}

func (o orders) any() bool { return len(o.own)+len(o.aim)+len(o.condemn) > 0 }

// by has a leader look again at some time.
func (o *orders) by(at time.Time) { o.again = earlier(o.again, at) }

// earlier is the earlier one of two times, the first of which may be none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// decide compares what is with what should be. It asks no clock but now.
func (m *memory) decide(s state, p Planner, now time.Time) orders {
	o := orders{own: map[string][]slotEpoch{}, aim: map[string][]slotEpoch{}}
	members := m.gathered(s, &o, now)
	at := make(map[string]int, len(members))
	for i, member := range members {
		at[member.ID] = i
	}
	v := View{Group: s.group.Name, Members: members, Load: s.loads}
	if s.loads == nil {
		v.Load = make([]float64, len(s.slots))
	}
	v.Owners, v.Reserved = m.owners(s, at, &o, now)
	if len(members) > 0 {
		m.order(s, members, at, p.Plan(v), &o)
	}
	m.watch(s, &o, now)
	return o
}

// gathered are the members to plan with: those that were there a while ago. Whoever has a slot, or
// is to have one, or bears the name of one that restarts, is one of them at once; so is everybody
// where there would be nobody who may own slots.
func (m *memory) gathered(s state, o *orders, now time.Time) []Member {
	old := map[string]bool{}
	restarting := map[string]bool{}
	began := false // somebody has owned something before
	for _, r := range s.slots {
		old[r.owner], old[r.target] = true, true
		restarting[r.ownerName] = restarting[r.ownerName] || r.ownerState == heartbeat.Restarting
		began = began || r.version > 0
	}
	var fresh []string
	for _, sv := range s.servers {
		if old[sv.id] || restarting[sv.name] {
			m.known[sv.id] = true
		}
		if !m.known[sv.id] {
			fresh = append(fresh, sv.id)
		}
	}
	nobody := began && !slices.ContainsFunc(s.servers, func(sv server) bool { return m.known[sv.id] && s.group.eligible(sv) })
	switch {
	case len(fresh) == 0:
		m.gather = time.Time{}
	case m.gather.IsZero():
		m.gather = now.Add(s.group.Gather)
	}
	if len(fresh) > 0 && (nobody || !now.Before(m.gather)) {
		for _, id := range fresh {
			m.known[id] = true
		}
		m.gather = time.Time{}
	}
	if !m.gather.IsZero() {
		o.by(m.gather)
	}
	var members []Member
	for _, sv := range s.servers {
		if m.known[sv.id] {
			weight, _ := WeightOf(sv.labels) // 1, where it says nothing that can be read
			members = append(members, Member{
				ID: sv.id, Name: sv.name, Weight: weight, CPU: sv.cpu,
				Eligible: s.group.eligible(sv),
			})
		}
	}
	maps.DeleteFunc(m.known, func(id string, _ bool) bool {
		return !slices.ContainsFunc(s.servers, func(sv server) bool { return sv.id == id })
	})
	return members
}

// room is how many slots may be on their way.
func (g Group) room() int { return max(1, g.Slots*g.MoveCap/100) }

// eligible says whether a server may own slots.
func (g Group) eligible(sv server) bool {
	for k, want := range g.Selector {
		if got, there := sv.labels[k]; !there || got != want {
			return false
		}
	}
	return sv.state == heartbeat.Alive
}

// owners are who has each slot, or will have it when it has arrived; and for which names slots are
// kept that cannot be given yet, or not to others, as their owners are condemned or restart.
func (m *memory) owners(s state, at map[string]int, o *orders, now time.Time) (owners []int, reserved []string) {
	owners, reserved = make([]int, len(s.slots)), make([]string, len(s.slots))
	restarts := map[string]time.Time{}
	for i, r := range s.slots {
		owners[i] = -1
		has := r.owner
		if r.aimed() {
			has = r.target
		}
		if index, here := at[has]; here && (r.owned() || r.aimed()) {
			owners[i] = index
		}
		switch {
		case r.ownerState == heartbeat.Condemned: // its session ends, and then it has no owner
			owners[i], reserved[i] = -1, r.ownerName
			continue
		case r.ownerState != heartbeat.Restarting || s.group.RestartGrace < 0:
			continue
		}
		since, known := m.restarts[r.owner]
		if !known {
			since = now
		}
		restarts[r.owner] = since
		if end := since.Add(s.group.RestartGrace); now.Before(end) {
			reserved[i] = r.ownerName
			o.by(end)
		}
	}
	m.restarts = restarts
	return owners, reserved
}

// order says what has to change. What has no owner gets one at once; what has moves only as far as
// the cap allows; what is on its way is left alone, unless nobody awaits it.
func (m *memory) order(s state, members []Member, at map[string]int, plan []int, o *orders) {
	room := s.group.room()
	for _, r := range s.slots {
		if r.owned() && r.target != "" {
			o.flying++
		}
	}
	for i, r := range s.slots {
		here := slotEpoch{r.slot, r.epoch}
		to := ""
		if plan[i] >= 0 && plan[i] < len(members) {
			to = members[plan[i]].ID
		}
		_, serves := at[r.owner]
		switch {
		case !r.owned():
			if to != "" {
				o.own[to] = append(o.own[to], here)
			}
		case r.ownerState == heartbeat.Condemned:
		case r.target != "" && !awaited(r, members, at):
			if to == r.owner {
				to = ""
			}
			o.aim[to] = append(o.aim[to], here)
		case r.target != "" || to == "" || to == r.owner || !serves:
		case s.loads == nil && members[at[r.owner]].Eligible: // it is to be evened out, and nobody knows whether it must
		case o.flying < room:
			o.flying++
			o.aim[to] = append(o.aim[to], here)
		}
	}
}

// awaited says whether the target of a slot is there to take it.
func awaited(r slotRow, members []Member, at map[string]int) bool {
	i, here := at[r.target]
	return r.aimed() && here && members[i].Eligible
}

// watch finds members that beat and do not carry the plan out.
func (m *memory) watch(s state, o *orders, now time.Time) {
	seen := map[string]int64{}
	for _, sv := range s.servers {
		seen[sv.id] = sv.seen
	}
	oldest := map[string]int64{}
	for _, r := range s.slots {
		saw, serves := seen[r.owner] // who does not serve the group any more is to give all back
		o.leaving = o.leaving || r.owned() && !serves
		if r.owned() && r.ownerState != heartbeat.Condemned && (!serves || r.target != "" || r.version > saw) {
			if v, some := oldest[r.owner]; !some || r.version < v {
				oldest[r.owner] = r.version
			}
		}
	}
	lags := map[string]lag{}
	for id, version := range oldest {
		l, known := m.lags[id]
		if !known || l.version != version {
			l = lag{version, now}
		}
		lags[id] = l
		if end := l.since.Add(s.group.Obey); now.Before(end) {
			o.by(end)
		} else {
			o.condemn = append(o.condemn, id)
		}
	}
	slices.Sort(o.condemn)
	m.lags = lags
}
