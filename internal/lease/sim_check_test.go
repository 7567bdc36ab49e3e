package lease_test

import (
	"database/sql/driver"
	"fmt"
	"sync"
	"time"

	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/lease"
)

// simScript has the server keep a log of what commits change, and a table for a user's own data.
const simScript = `
create table sim_work (lease text, token integer);
create table sim_log (n integer primary key, what text, lease text, token integer, id text, member text, before text, old integer);
create trigger sim_lease after update on coordd_leases when new.token <> old.token or new.grant_id is not old.grant_id begin
	insert into sim_log (what, lease, token, id, member, before, old)
	values ('moved', new.name, new.token, coalesce(new.grant_id, ''), coalesce(new.holder, ''), coalesce(old.grant_id, ''), old.token);
end;
create trigger sim_share after insert on coordd_shared begin
	insert into sim_log (what, lease, token, id, member) values ('shared', new.lease, new.token, new.grant_id, new.member_id);
end;
create trigger sim_unshare after delete on coordd_shared begin
	insert into sim_log (what, lease, id) values ('unshared', old.lease, old.grant_id);
end;
create trigger sim_wait after insert on coordd_waiters begin
	insert into sim_log (what, lease, token, id, member, old) values ('waits', new.lease, new.ticket, new.id, new.member_id, new.priority);
end;
create trigger sim_prefer after update on coordd_waiters begin
	insert into sim_log (what, lease, token, id, member, old) values ('waits', new.lease, new.ticket, new.id, new.member_id, new.priority);
end;
create trigger sim_unwait after delete on coordd_waiters begin
	insert into sim_log (what, lease, id) values ('waits no more', old.lease, old.id);
end;
create trigger sim_join after insert on coordd_heartbeats begin
	insert into sim_log (what, id, member) values ('state', new.state, new.member_id);
end;
create trigger sim_state after update on coordd_heartbeats when new.state <> old.state begin
	insert into sim_log (what, id, member) values ('state', new.state, new.member_id);
end;
create trigger sim_history after update on coordd_meta when new.name = 'history' begin
	insert into sim_log (what, token, id) values ('history', new.value, new.text);
end;
create trigger sim_wrote after insert on sim_work begin
	insert into sim_log (what, lease, token) values ('wrote', new.lease, new.token);
end`

const (
	simLog     = `select n, what, coalesce(lease, ''), coalesce(token, 0), coalesce(id, ''), coalesce(member, ''), coalesce(before, ''), coalesce(old, 0) from sim_log where n > ?`
	simLast    = `select coalesce(max(n), 0) from sim_log`
	simStates  = `select member_id, state from coordd_heartbeats`
	simHistory = `select value, text from coordd_meta where name = 'history'`
	simLeases  = `select name, token, coalesce(grant_id, '') from coordd_leases`
	simShared  = `select lease, grant_id from coordd_shared`
	simWaiters = `select lease, id, member_id, ticket, priority from coordd_waiters`
)

// line is one of the log.
type line struct {
	n          int64
	what       string
	lease      string
	token      int64
	id, member string
	before     string // the grant that was there
	old        int64  // the token that was there; or the priority of a waiter
}

// ledger is what commits and clients have told, by which the promises are checked.
type ledger struct {
	sim  *dbtest.Sim
	ring func() // when something has been freed

	mu        sync.Mutex
	last      int64 // line of the log
	failovers int
	history   int64  // its number, negative in quarantine
	text      string // its fingerprint, as it was accepted
	leases    map[string]*simLease
	grants    map[string]*simGrant // by id, of all histories
	states    map[string]string    // of members
	members   map[string]*member   // that have run
	settling  map[string]bool      // grants that somebody wanted to know of
	seen      map[string]int
}

// simLease is a lease as the latest commit left it.
type simLease struct {
	name    string
	token   int64
	highest int64                // that was ever granted
	holder  *simGrant            // who holds it alone
	sharing map[string]*simGrant // who share it
	waiting map[string]simWaiter // by id
	tokens  map[int64]*simGrant  // of all histories
	handles []*handle            // that may be valid
}

type simWaiter struct {
	member           string
	ticket, priority int64
}

// simGrant is one grant.
type simGrant struct {
	id, member string
	token      int64
	before     int64 // the token that it expected
	shared     bool
	failovers  int  // before it
	fenced     bool // a newer one that excludes it was committed
	handle     *handle
}

// handle is a right in a client's hands.
type handle struct {
	right
	grant *simGrant
	host  *dbtest.Host
	gone  bool          // its row has gone, by a commit after it was granted
	ended time.Duration // when it was first seen to be not valid, while its context had not ended
}

func newLedger(sim *dbtest.Sim, ring func()) *ledger {
	return &ledger{
		sim: sim, ring: ring, leases: map[string]*simLease{}, grants: map[string]*simGrant{}, states: map[string]string{},
		members: map[string]*member{}, settling: map[string]bool{}, seen: map[string]int{},
	}
}

func (l *ledger) saw(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[what]++
}

func (l *ledger) joined(m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members[m.ID()] = m
}

func (l *ledger) lease(name string) *simLease {
	if l.leases[name] == nil {
		l.leases[name] = &simLease{name: name, sharing: map[string]*simGrant{}, waiting: map[string]simWaiter{}, tokens: map[int64]*simGrant{}}
	}
	return l.leases[name]
}

// lives says whether a member's rights count.
func (l *ledger) lives(id string) bool {
	switch l.states[id] {
	case "alive", "draining", "condemned":
		return true
	}
	return false
}

// waits says whether a member's place in a queue counts.
func (l *ledger) waits(id string) bool { return l.lives(id) && l.states[id] != "condemned" }

// began checks what is valid whenever a host begins a statement, as who thaws may be wrong for a
// moment only; and notes which grant it wants to know of.
func (l *ledger) began(by *dbtest.Host, stmt string, args []driver.NamedValue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, of := range l.leases {
		l.checkValid(of)
	}
	if stmt == lease.SupersedeText {
		l.settling[fmt.Sprint(by.Name, args[0].Value, args[1].Value)] = true
	}
}

// committed checks what a commit has changed, before anything else is committed.
func (l *ledger) committed(c dbtest.Commit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []line
	for _, f := range c.Query(simLog, l.last) {
		lines = append(lines, line{f[0].(int64), f[1].(string), f[2].(string), f[3].(int64), f[4].(string), f[5].(string), f[6].(string), f[7].(int64)})
	}
	for _, e := range lines {
		l.last = e.n
		l.entered(e, lines)
	}
}

func (l *ledger) entered(e line, commit []line) {
	switch e.what {
	case "state":
		l.states[e.member] = e.id
	case "history":
		if l.history < 0 && e.token > 0 {
			l.seen[sawHistory]++
		}
		l.history, l.text = e.token, e.id
	case "moved":
		l.moved(l.lease(e.lease), e, commit)
	case "shared":
		l.shared(l.lease(e.lease), e, commit)
	case "unshared":
		of := l.lease(e.lease)
		l.freed(of, of.sharing[e.id])
		delete(of.sharing, e.id)
	case "waits":
		if of := l.lease(e.lease); of.waiting[e.id] == (simWaiter{}) {
			l.seen[sawWait]++
		}
		l.lease(e.lease).waiting[e.id] = simWaiter{e.member, e.token, e.old}
	case "waits no more":
		delete(l.lease(e.lease).waiting, e.id)
	case "wrote":
		l.wrote(l.lease(e.lease), e)
	}
}

// moved: the row of a lease has changed. Its token never falls (L1), and nobody takes what a
// valid holder has (L2).
func (l *ledger) moved(of *simLease, e line, commit []line) {
	if e.token < e.old || e.old != of.token {
		l.sim.Violated("L1: the token of %s was %d and is %d, was known as %d", of.name, e.old, e.token, of.token)
	}
	if e.id == "" && e.token == e.old+1 && !has(commit, "shared", of.name) {
		l.seen[sawSettled]++
	}
	of.token = e.token
	before := of.holder
	of.holder = nil
	l.freed(of, before)
	if e.id == "" {
		return
	}
	if before != nil {
		l.seen[sawTakeover]++
	}
	l.seen[sawGrant]++
	g := &simGrant{id: e.id, member: e.member, token: e.token, before: e.old, failovers: l.failovers}
	l.granted(of, g, commit)
	of.holder = g
}

// shared: one more shares a lease, whose token has moved just before.
func (l *ledger) shared(of *simLease, e line, commit []line) {
	l.seen[sawShare]++
	g := &simGrant{id: e.id, member: e.member, token: e.token, shared: true, failovers: l.failovers}
	for _, other := range commit {
		if other.what == "moved" && other.lease == e.lease {
			g.before = other.old
		}
	}
	l.granted(of, g, commit)
	of.sharing[g.id] = g
}

func has(commit []line, what, name string) bool {
	for _, e := range commit {
		if e.what == what && e.lease == name {
			return true
		}
	}
	return false
}

// freed: the row of a grant has gone. Nobody but its holder does that for as long as he lives
// (L2). What was granted before a failover is checked when others are granted it.
func (l *ledger) freed(of *simLease, g *simGrant) {
	if g == nil {
		return
	}
	l.ring()
	if g.handle != nil && g.failovers == l.failovers {
		g.handle.gone = true
		l.checkValid(of)
	}
}

// granted checks a grant.
func (l *ledger) granted(of *simLease, g *simGrant, commit []line) {
	l.sim.Note("", "%s %d granted to %s, shared %v", of.name, g.token, tail(g.member), g.shared)
	if g.token <= of.highest {
		l.sim.Violated("L1: token %d of %s was granted after %d", g.token, of.name, of.highest)
	}
	if l.grants[g.id] != nil {
		l.sim.Violated("L6: %s was granted twice by one grant id, with tokens %d and %d", of.name, l.grants[g.id].token, g.token)
	}
	of.highest = max(of.highest, g.token)
	l.grants[g.id], of.tokens[g.token] = g, g
	l.checkHistory(of, g)
	l.checkAsked(of, g)
	l.checkRoom(of, g)
	l.checkTurn(of, g, commit)
	l.fence(of, g)
}

// checkHistory: nothing is granted in a history that nobody has accepted, or is in quarantine (S1).
func (l *ledger) checkHistory(of *simLease, g *simGrant) {
	text := "sqlite"
	if l.failovers > 0 {
		text = fmt.Sprint("sqlite ", l.failovers)
	}
	if l.history <= 0 || l.text != text {
		l.sim.Violated("S1: %s was granted with token %d in history %d of %q, and the server's is %q", of.name, g.token, l.history, l.text, text)
	}
}

// checkAsked: nothing is granted to a member of which no call knows of it any more (L6).
func (l *ledger) checkAsked(of *simLease, g *simGrant) {
	if m := l.members[g.member]; m != nil && m.Err() == nil && !m.crashed.Load() && !lease.Knows(m.Session, g.id) {
		l.sim.Violated("L6: %s was granted with token %d to %s, which does not ask for it any more", of.name, g.token, tail(g.member))
	}
}

// checkRoom: nothing is granted beside those who live and exclude it (L2).
func (l *ledger) checkRoom(of *simLease, g *simGrant) {
	if of.holder != nil && l.lives(of.holder.member) {
		l.sim.Violated("L2: %s was granted with token %d beside %d, whose holder lives", of.name, g.token, of.holder.token)
	}
	limit, sharing := 1, 1
	if g.shared {
		limit = limits[of.name]
	}
	for _, other := range of.sharing {
		if l.lives(other.member) {
			sharing++
		}
	}
	if sharing > limit {
		l.sim.Violated("L2: %s was granted with token %d to %d at once, want %d at most", of.name, g.token, sharing, limit)
	}
}

// checkTurn: who does not wait overtakes nobody, and who waits at most one that lives and could
// have it.
func (l *ledger) checkTurn(of *simLease, g *simGrant, commit []line) {
	var me simWaiter
	for _, e := range commit {
		if e.what == "waits no more" && e.lease == of.name {
			me = of.waiting[e.id]
		}
	}
	ahead, most := 0, 0
	for _, w := range of.waiting {
		if l.waits(w.member) && w != me && (me.member == "" || w.priority > me.priority || w.priority == me.priority && w.ticket < me.ticket) {
			ahead++
		}
	}
	if me.member != "" {
		most = 1
	}
	for _, other := range of.sharing {
		if l.lives(other.member) {
			most = 0
		}
	}
	if ahead > most {
		l.sim.Violated("%s was granted with token %d to %s, with ticket %d, before %d others that wait, want %d at most", of.name, g.token, tail(g.member), me.ticket, ahead, most)
	}
	if ahead > 0 {
		l.seen[sawBarge]++
	}
}

// fence notes which grants may not guard a commit any more: those that this one excludes, and
// the dead that it displaces.
func (l *ledger) fence(of *simLease, g *simGrant) {
	for _, other := range of.tokens {
		if other != g && (!g.shared || !other.shared || !l.lives(other.member)) {
			other.fenced = true
		}
	}
}

// wrote: a guarded transaction commits only if nothing that excludes its right was granted before
// (L3).
func (l *ledger) wrote(of *simLease, e line) {
	l.seen[sawWrite]++
	if g := of.tokens[e.token]; g == nil || g.fenced {
		l.sim.Violated("L3: a transaction was committed under %s with token %d, and the newest is %d", of.name, e.token, of.highest)
	}
}

// failedOver learns what another server has, in place of what is known.
func (l *ledger) failedOver(query dbtest.Query) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[sawFailover]++
	l.failovers++
	l.last = query(simLast)[0][0].(int64)
	h := query(simHistory)[0]
	l.history, l.text = h[0].(int64), h[1].(string)
	clear(l.states)
	for _, f := range query(simStates) {
		l.states[f[0].(string)] = f[1].(string)
	}
	for _, of := range l.leases {
		of.token, of.holder = 0, nil
		clear(of.sharing)
		clear(of.waiting)
		for _, g := range of.tokens {
			g.fenced = true
		}
	}
	for _, f := range query(simLeases) {
		of, g := l.lease(f[0].(string)), l.grants[f[2].(string)]
		of.token = f[1].(int64)
		if g != nil {
			of.holder, g.fenced = g, false
		}
	}
	for _, f := range query(simShared) {
		of, g := l.lease(f[0].(string)), l.grants[f[1].(string)]
		of.sharing[g.id], g.fenced = g, false
	}
	for _, f := range query(simWaiters) {
		l.lease(f[0].(string)).waiting[f[1].(string)] = simWaiter{f[2].(string), f[3].(int64), f[4].(int64)}
	}
}

// handedOut checks a right that a client was given, or took up again.
func (l *ledger) handedOut(m *member, h right, name string, token int64, shared bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sim.Note(m.machine.host.Name, "%s has %s %d", tail(m.ID()), name, token)
	of := l.lease(name)
	g := of.tokens[token]
	switch {
	case g == nil || g.member != m.ID():
		l.sim.Violated("L1: %s was handed out with token %d to %s, and not granted", name, token, tail(m.ID()))
		return
	case g.handle != nil && g.handle.Context().Err() == nil:
		l.sim.Violated("L6: %s was handed out twice with token %d", name, token)
	case g.handle == nil && !shared && !h.Valid():
		// Who shares it has woken another in between.
		l.sim.Violated("L4: %s was handed out with token %d when it had ended", name, token)
	}
	if l.settling[fmt.Sprint(m.machine.host.Name, name, g.before)] && g.handle == nil {
		l.seen[sawAdoption]++
	}
	g.handle = &handle{right: h, grant: g, host: m.machine.host}
	of.handles = append(of.handles, g.handle)
	l.checkValid(of)
}

// look checks everything that is valid at this instant.
func (l *ledger) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, of := range l.leases {
		l.checkValid(of)
	}
}

// late is how long after its deadline a right may go on: a process that was frozen asks its clock
// each margin.
const late = 250 * time.Millisecond

// checkValid: at one instant a lease is held by one, or shared by some, as the database has it
// (L2); and the context of what is not valid any more ends (L4). Who is frozen sees nothing, and
// has to know it when it thaws.
func (l *ledger) checkValid(of *simLease) {
	var alone, sharing int
	current := of.handles[:0]
	for _, h := range of.handles {
		if h.Context().Err() != nil {
			continue
		}
		current = append(current, h)
		if h.host.Frozen() {
			h.ended = 0
			continue
		}
		valid := h.Valid()
		switch now := l.sim.Since(); {
		case valid && h.gone:
			l.sim.Violated("L2: %s with token %d was taken from %s, which holds it validly", of.name, h.grant.token, tail(h.grant.member))
		case valid && h.grant.shared:
			sharing++
		case valid:
			alone++
		case h.ended == 0:
			h.ended = now
		case now-h.ended > late:
			l.sim.Violated("L4: the context of %s %d has not ended, and it is not valid for %v", of.name, h.grant.token, now-h.ended)
		}
	}
	of.handles = current
	if alone > 1 || alone > 0 && sharing > 0 || sharing > 0 && sharing > limits[of.name] {
		l.sim.Violated("L2: %s is held validly by %d alone and by %d together", of.name, alone, sharing)
	}
}

// led says whether somebody leads.
func (l *ledger) led() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.lease(elected).handles {
		if h.Valid() {
			return true
		}
	}
	return false
}

// accepted says whether the database knows of a history.
func (l *ledger) accepted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.history != 0
}

// has says what the database has for a member.
func (l *ledger) has(member string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, of := range l.leases {
		if of.holder != nil && of.holder.member == member {
			return fmt.Sprintf("%s %d", name, of.holder.token)
		}
		for _, g := range of.sharing {
			if g.member == member {
				return fmt.Sprintf("%s %d", name, g.token)
			}
		}
		for _, w := range of.waiting {
			if w.member == member {
				return fmt.Sprintf("ticket %d for %s", w.ticket, name)
			}
		}
	}
	return ""
}
