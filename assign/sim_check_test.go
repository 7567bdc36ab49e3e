package assign_test

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/internal/dbtest"
)

// simScript has the server keep a log of what commits change, and a table for a user's own data.
const simScript = `
create table sim_work (slot integer, epoch integer, member text);
create table sim_log (n integer primary key, what text, id text, number integer, text text,
	owner text, target text, epoch integer, old_owner text, old_target text, old_epoch integer);
create trigger sim_new_slot after insert on coordd_slots begin
	insert into sim_log (what, number) values ('new slot', new.slot);
end;
create trigger sim_slot after update on coordd_slots when new.epoch <> old.epoch or new.owner is not old.owner or new.target is not old.target begin
	insert into sim_log (what, id, number, owner, target, epoch, old_owner, old_target, old_epoch)
	values ('slot', new.version, new.slot, coalesce(new.owner, ''), coalesce(new.target, ''), new.epoch, coalesce(old.owner, ''), coalesce(old.target, ''), old.epoch);
end;
create trigger sim_new_group after insert on coordd_groups begin
	insert into sim_log (what, number, text) values ('group', new.plan_version, new.options);
end;
create trigger sim_group after update on coordd_groups begin
	insert into sim_log (what, number, text) values ('group', new.plan_version, new.options);
end;
create trigger sim_drop after delete on coordd_groups begin
	insert into sim_log (what) values ('dropped');
end;
create trigger sim_serves after insert on coordd_group_members begin
	insert into sim_log (what, id, number) values ('serves', new.member_id, new.seen);
end;
create trigger sim_seen after update on coordd_group_members begin
	insert into sim_log (what, id, number) values ('seen', new.member_id, new.seen);
end;
create trigger sim_serves_not after delete on coordd_group_members begin
	insert into sim_log (what, id) values ('serves no more', old.member_id);
end;
create trigger sim_new_job after insert on coordd_jobs begin
	insert into sim_log (what, id, number, text, epoch) values ('job', new.job_key, new.slot, new.payload || new.labels, new.paused);
end;
create trigger sim_job after update on coordd_jobs begin
	insert into sim_log (what, id, number, text, epoch) values ('job', new.job_key, new.slot, new.payload || new.labels, new.paused);
end;
create trigger sim_no_job after delete on coordd_jobs begin
	insert into sim_log (what, id) values ('no job', old.job_key);
end;
create trigger sim_join after insert on coordd_heartbeats begin
	insert into sim_log (what, id, text) values ('state', new.member_id, new.state);
end;
create trigger sim_state after update on coordd_heartbeats when new.state <> old.state begin
	insert into sim_log (what, id, text) values ('state', new.member_id, new.state);
end;
create trigger sim_history after update on coordd_meta when new.name = 'history' begin
	insert into sim_log (what, number, text) values ('history', new.value, new.text);
end;
create trigger sim_led after update on coordd_leases when new.name = 'election/coordd/assign/g' begin
	insert into sim_log (what, id, number) values ('led', coalesce(new.holder, ''), new.token);
end;
create trigger sim_event after insert on coordd_events begin
	insert into sim_log (what, id) values ('event', new.topic);
end;
create trigger sim_wrote after insert on sim_work begin
	insert into sim_log (what, id, number, epoch) values ('wrote', new.member, new.slot, new.epoch);
end`

const (
	simLog = `select n, what, coalesce(id, ''), coalesce(number, 0), coalesce(text, ''), coalesce(owner, ''), coalesce(target, ''), coalesce(epoch, 0),
		coalesce(old_owner, ''), coalesce(old_target, ''), coalesce(old_epoch, 0) from sim_log where n > ?`
	simLast    = `select coalesce(max(n), 0) from sim_log`
	simStates  = `select member_id, state from coordd_heartbeats`
	simHistory = `select value, text from coordd_meta where name = 'history'`
	simPlan    = `select plan_version from coordd_groups`
	simOwners  = `select slot, coalesce(owner, ''), coalesce(target, ''), epoch from coordd_slots`
	simServers = `select member_id, seen from coordd_group_members`
	simSpecs   = `select job_key, slot, payload || labels, paused from coordd_jobs`
	simLeader  = `select coalesce(holder, ''), token from coordd_leases where name = 'election/coordd/assign/g'`
)

// line is one of the log.
type line struct {
	n                   int64
	what, id            string
	number              int64
	text                string
	owner, target       string
	epoch               int64
	oldOwner, oldTarget string
	oldEpoch            int64
}

// ledger is what commits and members have told, by which the promises are checked.
type ledger struct {
	sim  *dbtest.Sim
	ring func() // when there is an event

	mu        sync.Mutex
	last      int64 // line of the log
	failovers int
	history   int64  // its number, negative in quarantine
	text      string // its fingerprint, as it was accepted
	states    map[string]string
	born      map[string]int     // how many failovers there were before a member joined
	members   map[string]*member // that have run
	orders    map[string]string  // the latest that an operator gave about a member
	seen      map[string]int

	version int64 // of the plan
	room    int   // how many slots may be on their way at once, by the widest of all options
	gone    bool  // the group was dropped
	slots   map[int64]*simSlot
	jobs    map[string]simJob
	servers map[string]int64 // who serves the group, and what it has seen
	leader  string
	term    int64

	serve map[*member]bool // whose call of Run or Changes has not returned
	runs  map[*run]bool    // functions that have begun
	moves int              // slots that have changed, and functions that have begun
	was   map[string]began // by job: how it ran last
	dims  map[*member]dim  // when members were last seen to be frozen, or not valid
	sent  map[string]bool  // owners with the slots, and in which epochs, that they have tried to hand over
}

// simSlot is a slot as the latest commit left it.
type simSlot struct {
	owner, target string
	epoch         int64
}

type simJob struct {
	slot   int64
	what   string // payload and labels
	paused bool
}

// run is one call of a function.
type run struct {
	member *member
	ctx    context.Context
	job    assign.Job
	done   bool          // it has returned, and has nothing to do
	ended  time.Duration // when it was first seen to be not valid, while its context had not ended
}

// dim is since when a member is seen to be not valid, and when it was last seen to be frozen.
type dim struct{ invalid, frozen time.Duration }

// began is what a function was begun with.
type began struct {
	member *member
	epoch  int64
	what   string
}

func newLedger(sim *dbtest.Sim, ring func()) *ledger {
	return &ledger{
		sim: sim, ring: ring, states: map[string]string{}, born: map[string]int{}, members: map[string]*member{}, orders: map[string]string{}, seen: map[string]int{},
		slots: map[int64]*simSlot{}, jobs: map[string]simJob{}, servers: map[string]int64{},
		serve: map[*member]bool{}, runs: map[*run]bool{}, was: map[string]began{}, sent: map[string]bool{}, dims: map[*member]dim{},
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

func (l *ledger) ordered(id, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orders[id] = what
}

func (l *ledger) dropped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone
}

// accepted says whether the database knows of a history.
func (l *ledger) accepted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.history != 0
}

// changes counts what has moved.
func (l *ledger) changes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.moves
}

// awaiting are those of some members to whom a slot was sent that has not arrived.
func (l *ledger) awaiting(of []*member) (some []*member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range of {
		for n, s := range l.slots {
			if s.target == m.ID() && l.sent[handOver(s.owner, n, s.epoch)] && l.states[m.ID()] == "alive" {
				some = append(some, m)
				break
			}
		}
	}
	return some
}

// lives says whether a member's rights count.
func (l *ledger) lives(id string) bool {
	switch l.states[id] {
	case "alive", "draining", "condemned":
		return true
	}
	return false
}

// serving: a member serves the group from now on, or no more, and then nothing of it runs.
func (l *ledger) serving(m *member, on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve[m] = on
	for r := range l.runs {
		if !on && r.member == m && !r.done && !m.crashed.Load() {
			l.sim.Violated("%s serves no more, and its function of %s has not returned", tail(m.ID()), r.job.Key)
		}
	}
}

// begins: a member begins a function. It runs no other one of that job, and has the slot if it is
// valid.
func (l *ledger) begins(m *member, ctx context.Context, j assign.Job) *run {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sim.Note(m.machine.host.Name, "%s runs %s, slot %d epoch %d", tail(m.ID()), j.Key, j.Slot(), j.Epoch())
	for other := range l.runs {
		if other.member == m && other.job.Key == j.Key && !other.done {
			l.sim.Violated("A2: %s runs %s, slot %d epoch %d, and its function of epoch %d has not returned", tail(m.ID()), j.Key, j.Slot(), j.Epoch(), other.job.Epoch())
		}
	}
	if since := l.dims[m].invalid; since > 0 && ctx.Err() == nil && !j.Valid() && l.sim.Since()-since > 10*time.Millisecond {
		l.sim.Violated("A2: %s begins %s, slot %d epoch %d, and is not valid for %v", tail(m.ID()), j.Key, j.Slot(), j.Epoch(), l.sim.Since()-since)
	}
	if l.sent[handOver(m.ID(), int64(j.Slot()), j.Epoch())] {
		l.sim.Violated("A2: %s runs %s, slot %d epoch %d, which it has tried to hand over in that epoch", tail(m.ID()), j.Key, j.Slot(), j.Epoch())
	}
	labels, _ := json.Marshal(j.Labels)
	now := began{m, j.Epoch(), j.Payload + string(labels)}
	switch last := l.was[j.Key]; {
	case last.member == m && last.what != now.what:
		l.seen[sawChanged]++
	case last.member == m && last.epoch == now.epoch:
		l.seen[sawResumed]++
	}
	l.was[j.Key] = now
	r := &run{member: m, ctx: ctx, job: j}
	l.runs[r] = true
	l.moves++
	l.checkValid()
	return r
}

// ends: a function returns. It may have nothing more to do as long as its context lives.
func (l *ledger) ends(r *run, idle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sim.Note(r.member.machine.host.Name, "%s runs %s no more", tail(r.member.ID()), r.job.Key)
	r.done = true
	if !idle {
		delete(l.runs, r)
	}
}

// began checks what is valid whenever a host begins a statement, as who thaws may be wrong for a
// moment only; and notes what is sent to hand slots over.
func (l *ledger) began(_ *dbtest.Host, stmt string, args []driver.NamedValue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checkValid()
	if strings.HasPrefix(stmt, assign.HandOverText) {
		for i := 4 + (len(args)-4)/3; i < len(args); i += 2 {
			l.sent[handOver(args[2].Value, args[i].Value, args[i+1].Value)] = true
		}
	}
}

func handOver(owner, slot, epoch any) string { return fmt.Sprint(owner, " ", slot, " ", epoch) }

// look checks everything that is valid at this instant.
func (l *ledger) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checkValid()
}

// late is how long after its deadline a right may go on: a process that was frozen asks its clock
// each margin.
const late = 250 * time.Millisecond

// checkValid: at one instant a job runs validly in one place at most, and that is where the
// database has it, unless it has forgotten that (A2); and the context of what is not valid any more
// ends. Who is frozen sees nothing, and has to know it when it thaws.
func (l *ledger) checkValid() {
	l.watch()
	where := map[string]*run{}
	for r := range l.runs {
		switch {
		case r.member.crashed.Load() || r.done && r.ctx.Err() != nil:
			delete(l.runs, r)
			continue
		case r.done || r.ctx.Err() != nil:
			continue
		case r.member.machine.host.Frozen():
			r.ended = 0
			continue
		}
		if !r.job.Valid() {
			if now := l.sim.Since(); r.ended == 0 {
				r.ended = now
			} else if now-r.ended > late {
				l.sim.Violated("the context of %s at %s has not ended, and it is not valid for %v", r.job.Key, tail(r.member.ID()), now-r.ended)
			}
			continue
		}
		if other := where[r.job.Key]; other != nil {
			l.sim.Violated("A2: %s runs validly at %s in epoch %d and at %s in epoch %d", r.job.Key,
				tail(other.member.ID()), other.job.Epoch(), tail(r.member.ID()), r.job.Epoch())
		}
		where[r.job.Key] = r
		if s := l.slots[int64(r.job.Slot())]; l.born[r.member.ID()] == l.failovers && !l.gone && (s.owner != r.member.ID() || s.epoch != r.job.Epoch()) {
			l.sim.Violated("A2: %s runs validly at %s in epoch %d, and its slot %d is %s's in epoch %d", r.job.Key,
				tail(r.member.ID()), r.job.Epoch(), r.job.Slot(), tail(s.owner), s.epoch)
		}
	}
}

// watch notes which members are not valid. One that was frozen a moment ago may not know it yet.
func (l *ledger) watch() {
	now := l.sim.Since()
	for _, m := range l.members {
		d := l.dims[m]
		switch {
		case m.machine.host.Frozen():
			d.frozen = now
			fallthrough
		case m.Valid() || now-d.frozen < late:
			d.invalid = 0
		case d.invalid == 0:
			d.invalid = now
		}
		l.dims[m] = d
	}
}

// committed checks what a commit has changed, before anything else is committed.
func (l *ledger) committed(c dbtest.Commit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	commit := commit{Commit: c, version: l.version}
	for _, f := range c.Query(simLog, l.last) {
		e := line{f[0].(int64), f[1].(string), f[2].(string), f[3].(int64), f[4].(string), f[5].(string), f[6].(string), f[7].(int64), f[8].(string), f[9].(string), f[10].(int64)}
		l.last = e.n
		l.entered(e, &commit)
	}
	l.checkRoom(commit)
	l.checkValid()
}

// commit is one, and what was found in it.
type commit struct {
	dbtest.Commit
	version int64 // of the plan, before it
	aimed   int   // slots that are to move, and were not
}

func (l *ledger) entered(e line, c *commit) {
	switch e.what {
	case "state":
		l.stated(e)
	case "history":
		if l.history < 0 && e.number > 0 {
			l.seen[sawHistory]++
		}
		l.history, l.text = e.number, e.text
	case "event":
		l.ring()
	case "group":
		l.grouped(e)
	case "dropped":
		l.gone = true
		clear(l.jobs)
	case "new slot":
		l.slots[e.number] = &simSlot{}
	case "slot":
		l.changed(l.slots[e.number], e, c)
	case "job":
		l.jobs[e.id] = simJob{e.number, e.text, e.epoch != 0}
	case "no job":
		delete(l.jobs, e.id)
	case "serves":
		l.registered(e)
	case "seen":
		l.servers[e.id] = e.number
	case "serves no more":
		delete(l.servers, e.id)
	case "led":
		l.led(e)
	case "wrote":
		l.wrote(e)
	}
}

// stated: a member's state has changed. The leader condemns only who serves.
func (l *ledger) stated(e line) {
	if _, known := l.born[e.id]; !known {
		l.born[e.id] = l.failovers
	}
	l.states[e.id] = e.text
	if e.text != "condemned" || l.orders[e.id] == sawCondemned {
		return
	}
	l.seen[sawDisobeyed]++
	l.sim.Note("", "%s is condemned by the leader", tail(e.id))
	if l.sim.Since() > chaos+6*time.Second {
		l.sim.Violated("%s is condemned, and nothing goes wrong any more", tail(e.id))
	}
}

// grouped: the group has another version of the plan, or other options.
func (l *ledger) grouped(e line) {
	if e.number < l.version {
		l.sim.Violated("A1: version %d of the plan came after %d", e.number, l.version)
	}
	l.version = e.number
	var options assign.Options
	if err := json.Unmarshal([]byte(e.text), &options); err != nil {
		l.sim.Violated("options %s: %v", e.text, err)
	}
	l.room = max(l.room, 1, simSlots*options.MoveCap/100)
}

// registered: a member says that it serves the group, and it does.
func (l *ledger) registered(e line) {
	l.servers[e.id] = e.number
	if m := l.members[e.id]; m != nil && !l.serve[m] && !m.crashed.Load() && m.Err() == nil {
		l.sim.Violated("%s says that it serves the group, and it does not", tail(e.id))
	}
}

func (l *ledger) led(e line) {
	if e.number > l.term && e.id != "" {
		l.seen[sawTerm]++
	}
	l.leader, l.term = e.id, e.number
}

// changed: a slot has changed hands, or is to.
func (l *ledger) changed(s *simSlot, e line, c *commit) {
	l.sim.Note("", "slot %d: %s to %s, epoch %d; was %s's to %s, epoch %d", e.number, tail(e.owner), tail(e.target), e.epoch, tail(e.oldOwner), tail(e.oldTarget), e.oldEpoch)
	l.moves++
	moved := e.owner != e.oldOwner
	switch {
	case s.owner != e.oldOwner || s.target != e.oldTarget || s.epoch != e.oldEpoch:
		l.sim.Violated("A1: slot %d was %s's to %s in epoch %d, and was known as %v", e.number, tail(e.oldOwner), tail(e.oldTarget), e.oldEpoch, *s)
	case e.epoch < e.oldEpoch || moved && e.epoch == e.oldEpoch:
		l.sim.Violated("A1: slot %d is %s's in epoch %d, and was %s's in epoch %d", e.number, tail(e.owner), e.epoch, tail(e.oldOwner), e.oldEpoch)
	case e.id != fmt.Sprint(l.version) || l.version <= c.version:
		l.sim.Violated("A3: slot %d has changed in version %s of the plan, which is %d and was %d", e.number, e.id, l.version, c.version)
	}
	l.checkHistory(e)
	s.owner, s.target, s.epoch = e.owner, e.target, e.epoch
	old := l.members[e.oldOwner]
	switch itself := old != nil && c.By == old.machine.host && !l.leads(c.By); {
	case e.epoch != e.oldEpoch && (l.lives(e.oldOwner) || itself): // the dead may do it late
		l.given(e, c)
	case e.epoch != e.oldEpoch:
		l.owned(e, c)
	default:
		l.aimed(e, c)
	}
	l.checkServes(e)
}

// given: the owner of a slot lives. It does so itself, and nothing of it runs (A2).
func (l *ledger) given(e line, c *commit) {
	from := l.members[e.oldOwner]
	if c.By != from.machine.host {
		l.sim.Violated("A2: slot %d was taken from %s, which lives, by %s", e.number, tail(e.oldOwner), c.By.Name)
	}
	for r := range l.runs {
		if r.member == from && int64(r.job.Slot()) == e.number && !r.done && !from.crashed.Load() {
			l.sim.Violated("A2: slot %d is given away by %s, whose function of %s has not returned", e.number, tail(e.oldOwner), r.job.Key)
		}
	}
	switch {
	case e.owner == "":
		l.seen[sawGiveBack]++
	case e.owner == e.oldOwner && e.oldTarget == "":
		l.seen[sawKept]++
	case e.owner == e.oldTarget:
		l.seen[sawMove]++
	default:
		l.sim.Violated("A2: slot %d was given by %s to %s, and was to go to %s", e.number, tail(e.oldOwner), tail(e.owner), tail(e.oldTarget))
	}
}

// owned: a slot without an owner is given one, by who leads.
func (l *ledger) owned(e line, c *commit) {
	l.checkLeads(e, c)
	old := l.members[e.oldOwner]
	switch {
	case old == nil:
	case l.states[e.oldOwner] == "restarting" && l.members[e.owner] != nil && l.members[e.owner].Name() == old.Name():
		l.seen[sawBack]++
	default:
		l.seen[sawTakeover]++
	}
}

// aimed: it was decided, by who leads, where a slot is to go; or who was to have it does not serve
// the group any more.
func (l *ledger) aimed(e line, c *commit) {
	if to := l.members[e.oldTarget]; e.target == "" && to != nil && c.By == to.machine.host && !l.leads(c.By) {
		return
	}
	l.checkLeads(e, c)
	if e.oldTarget == "" {
		c.aimed++
	}
}

// leads says whether the member that was elected last is on a host.
func (l *ledger) leads(host *dbtest.Host) bool {
	m := l.members[l.leader]
	return m != nil && m.machine.host == host
}

// checkLeads: only who was elected last plans.
func (l *ledger) checkLeads(e line, c *commit) {
	if !l.leads(c.By) {
		l.sim.Violated("slot %d was planned by %s, and %s leads in term %d", e.number, c.By.Name, tail(l.leader), l.term)
	}
}

// checkServes: a slot is given, or is to be given, to somebody who serves the group, or has ended.
func (l *ledger) checkServes(e line) {
	for now, before := range map[string]string{e.owner: e.oldOwner, e.target: e.oldTarget} {
		if _, serves := l.servers[now]; now != before && !serves && l.lives(now) {
			l.sim.Violated("A3: slot %d goes to %s, which lives and does not serve the group", e.number, tail(now))
		}
	}
}

// checkHistory: nothing moves in a history that nobody has accepted, or is in quarantine.
func (l *ledger) checkHistory(e line) {
	text := "sqlite"
	if l.failovers > 0 {
		text = fmt.Sprint("sqlite ", l.failovers)
	}
	if l.history <= 0 || l.text != text {
		l.sim.Violated("S1: slot %d has changed in history %d of %q, and the server's is %q", e.number, l.history, l.text, text)
	}
}

// checkRoom: only so many slots are on their way at once.
func (l *ledger) checkRoom(c commit) {
	if c.aimed == 0 {
		return
	}
	flying := 0
	for _, s := range l.slots {
		if s.target != "" && l.lives(s.owner) {
			flying++
		}
	}
	if flying > l.room {
		l.sim.Violated("%d slots are on their way, want %d at most", flying, l.room)
	}
}

// wrote: a guarded transaction commits only while its slot is still the same owner's in the same
// epoch.
func (l *ledger) wrote(e line) {
	l.seen[sawWrite]++
	if s := l.slots[e.number]; s.owner != e.id || s.epoch != e.epoch {
		l.sim.Violated("A2: a transaction of %s was committed under slot %d and epoch %d, which is %s's in epoch %d", tail(e.id), e.number, e.epoch, tail(s.owner), s.epoch)
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
	l.version = query(simPlan)[0][0].(int64)
	l.leader, l.term = "", 0
	for _, f := range query(simLeader) {
		l.leader, l.term = f[0].(string), f[1].(int64)
	}
	clear(l.states)
	for _, f := range query(simStates) {
		l.states[f[0].(string)] = f[1].(string)
	}
	clear(l.servers)
	for _, f := range query(simServers) {
		l.servers[f[0].(string)] = f[1].(int64)
	}
	for _, f := range query(simOwners) {
		l.slots[f[0].(int64)] = &simSlot{owner: f[1].(string), target: f[2].(string), epoch: f[3].(int64)}
	}
	clear(l.jobs)
	for _, f := range query(simSpecs) {
		l.jobs[f[0].(string)] = simJob{f[1].(int64), f[2].(string), f[3].(int64) != 0}
	}
}

// unsettled says what is not as it should be in the end: each slot is with one who may have it,
// each job runs there as it is now, and everybody knows all of that.
func (l *ledger) unsettled() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	some := false
	for id := range l.servers {
		some = some || l.states[id] == "alive"
	}
	for n, s := range l.slots {
		if some && l.states[s.owner] != "alive" || s.target != "" {
			return fmt.Sprintf("slot %d is %s's, which is %s, and goes to %q", n, tail(s.owner), l.states[s.owner], tail(s.target))
		}
	}
	for m, on := range l.serve {
		if seen, registered := l.servers[m.ID()]; on && l.states[m.ID()] == "alive" && (!registered || seen < l.version) {
			return fmt.Sprintf("%s has seen version %d of the plan, which is %d", tail(m.ID()), seen, l.version)
		}
	}
	for id := range l.servers {
		if m := l.members[id]; l.lives(id) && (m == nil || !l.serve[m]) {
			return tail(id) + " does not serve the group, and the database says that it does"
		}
	}
	return l.unserved()
}

// unserved says which job does not run where it should.
func (l *ledger) unserved() string {
	where := map[string]int{}
	for r := range l.runs {
		if r.done && r.ctx.Err() != nil || r.member.crashed.Load() {
			continue
		}
		j, there := l.jobs[r.job.Key]
		labels, _ := json.Marshal(r.job.Labels)
		s := l.slots[int64(r.job.Slot())]
		switch {
		case !there || j.paused:
			return fmt.Sprintf("%s runs at %s, and it is paused or removed", r.job.Key, tail(r.member.ID()))
		case s.owner != r.member.ID() || s.epoch != r.job.Epoch():
			return fmt.Sprintf("%s runs at %s in epoch %d, and slot %d is %s's in epoch %d", r.job.Key, tail(r.member.ID()), r.job.Epoch(), r.job.Slot(), tail(s.owner), s.epoch)
		case r.ctx.Err() != nil:
			return fmt.Sprintf("%s does not stop at %s", r.job.Key, tail(r.member.ID()))
		case r.job.Payload+string(labels) != j.what:
			return fmt.Sprintf("%s runs at %s as %q, and it is %q", r.job.Key, tail(r.member.ID()), r.job.Payload+string(labels), j.what)
		}
		where[r.job.Key]++
	}
	for key, j := range l.jobs {
		if n := where[key]; n != 1 && !j.paused && l.lives(l.slots[j.slot].owner) {
			return fmt.Sprintf("%s in slot %d runs at %d places", key, j.slot, n)
		}
	}
	return ""
}

// leftOver says what the database still has of those who live, and what still runs, when nobody
// serves the group any more.
func (l *ledger) leftOver() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.runs {
		if !r.done && !r.member.crashed.Load() {
			return fmt.Sprintf("%s runs at %s, which serves the group no more", r.job.Key, tail(r.member.ID()))
		}
	}
	if l.gone {
		return ""
	}
	for n, s := range l.slots {
		if l.lives(s.owner) || l.lives(s.target) {
			return fmt.Sprintf("nobody serves the group, and slot %d is %s's and goes to %q", n, tail(s.owner), tail(s.target))
		}
	}
	for id := range l.servers {
		if l.lives(id) {
			return tail(id) + " has stopped serving the group, and the database says that it has not"
		}
	}
	return ""
}
