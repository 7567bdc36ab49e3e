package assign_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/dbtest"
)

const (
	chaos  = 5 * time.Second         // for this long things go wrong
	enough = chaos + 25*time.Second  // by then all must have come right
	calm   = 2500 * time.Millisecond // for this long nothing moves then
	tick   = 50 * time.Millisecond   // between two looks at who is valid
)

var simTTLs = []time.Duration{1200 * time.Millisecond, 1500 * time.Millisecond, 2 * time.Second}

// simMaxTTL is the longest of them: a quarantine lasts so long and a little more.
const simMaxTTL = `update coordd_meta set value = 2000 where name = 'max_ttl'`

const (
	simGroup = "g"
	simSlots = 12
	simJobs  = 15 // at first
)

// world is one seed.
type world struct {
	t        *testing.T
	sim      *dbtest.Sim
	ledger   *ledger
	machines []*machine
	planner  assign.Planner // nil: as the group's strategy has it
	stubborn bool           // functions that are late are too late

	life   context.Context // of those who serve
	finish context.CancelFunc
	over   chan struct{}  // closed when members are to leave
	behind sync.WaitGroup // what crashed processes leave behind
	bell   bell
}

// machine is one host's process, one after the other.
type machine struct {
	w      *world
	host   *dbtest.Host
	ttl    time.Duration
	labels map[string]string
	r      *rand.Rand

	first bool // always comes back, so that somebody is there

	mu   sync.Mutex
	up   *member // nil while there is none
	gone bool    // it was not to come back
}

// member is a session that serves the group.
type member struct {
	*heartbeat.Session
	machine *machine
	process *dbtest.Process
	ctx     context.Context // of its work
	cancel  context.CancelFunc
	working sync.WaitGroup
	crashed atomic.Bool

	mu sync.Mutex
	r  *rand.Rand
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, over: make(chan struct{})}
	w.life, w.finish = context.WithCancel(t.Context())
	r := rand.New(rand.NewPCG(seed, 0))
	ttls := make([]time.Duration, 2+r.IntN(5)/2)
	for i := range ttls {
		ttls[i] = simTTLs[r.IntN(len(simTTLs))]
	}
	w.sim = dbtest.NewSim(t, seed, chaos, ttls)
	w.sim.Script(simMaxTTL + ";" + simScript)
	w.ledger = newLedger(w.sim, w.bell.ring)
	w.sim.OnCommit, w.sim.OnStatement = w.ledger.committed, w.ledger.began
	w.stubborn = r.IntN(4) == 0
	if r.IntN(2) == 0 {
		w.planner = &restless{w: w, r: w.sim.Rand("planner")}
	}
	for i, host := range w.sim.Hosts {
		m := &machine{w: w, host: host, ttl: ttls[i], r: w.sim.Rand(host.Name), first: i == 0}
		m.labels = map[string]string{"zone": []string{"a", "b"}[i%2], assign.WeightLabel: fmt.Sprint(1 + m.r.IntN(2))}
		w.machines = append(w.machines, m)
	}
	return w
}

// restless plans as the default does, and moves whatever it likes while things go wrong.
type restless struct {
	w  *world
	mu sync.Mutex
	r  *rand.Rand
}

func (p *restless) Plan(v assign.View) []int {
	plan := assign.Sticky(assign.ConsistentHash{}).Plan(v)
	var some []int
	for i, m := range v.Members {
		if m.Eligible {
			some = append(some, i)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for slot, to := range plan {
		if to >= 0 && p.w.sim.Since() < chaos && p.r.IntN(4) == 0 {
			plan[slot] = some[p.r.IntN(len(some))]
		}
	}
	return plan
}

// run lets everything go wrong, then lets it come right.
func (w *world) run() {
	w.begin()
	var running sync.WaitGroup
	for _, m := range w.machines {
		running.Go(m.run)
	}
	running.Go(w.operate)
	running.Go(w.failOver)
	w.watch(chaos, nil)
	w.watch(enough, w.settled())
	w.end()
	w.watch(w.sim.Since()+5*time.Second, w.ledger.leftOver)
	close(w.over)
	running.Wait()
	w.behind.Wait()
	w.sim.Close()
}

// begin makes the group and its first jobs.
func (w *world) begin() {
	r, db := w.sim.Rand("group"), w.sim.Hosts[0].DB
	var jobs []assign.Spec
	for i := range simJobs {
		jobs = append(jobs, assign.Spec{Key: fmt.Sprint("job-", i), Weight: 1 + r.IntN(3)})
	}
	for {
		err := assign.Define(w.t.Context(), db, group(r))
		if err == nil {
			_, err = assign.Add(w.t.Context(), db, simGroup, jobs...)
		}
		if err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// group is the group, with some options.
func group(r *rand.Rand) assign.Group {
	strategies := assign.Strategies()
	g := assign.Group{Name: simGroup, Slots: simSlots, Strategy: strategies[r.IntN(len(strategies))]}
	g.MoveCap = []int{25, 50, 100}[r.IntN(3)]
	g.Gather = upTo(r, 0.4)
	g.RestartGrace = []time.Duration{-1, time.Second, 2 * time.Second}[r.IntN(3)]
	g.Obey = 2*time.Second + upTo(r, 1)
	if r.IntN(4) == 0 {
		g.Selector = map[string]string{"zone": "a"}
	}
	return g
}

// end ends the service: members stop serving, or, in some worlds, the group is dropped.
func (w *world) end() {
	if w.sim.Seed%8 == 0 && w.sim.Verdict() == "" {
		w.drop()
	} else {
		w.finish()
	}
	for _, m := range w.members() {
		m.working.Wait()
	}
	w.finish()
}

// drop removes the group under its members, as somebody may do by hand, for Drop refuses it.
func (w *world) drop() {
	db := w.sim.Hosts[0].DB
	if err := assign.Drop(w.t.Context(), db, simGroup); !errors.Is(err, coordd.ErrHeld) {
		w.sim.Violated("to drop what is served: got %v, want it refused", err)
		return
	}
	w.ledger.saw(sawDrop)
	err := db.Tx(w.t.Context(), func(tx coordd.Queries) (err error) {
		for _, table := range []string{"groups where name", "group_members where grp", "slots where grp", "jobs where grp"} {
			if err == nil {
				_, err = tx.Exec(w.t.Context(), "delete from coordd_"+table+" = ?", simGroup)
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
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

// settled says what is not as it should be, or has moved a moment ago.
func (w *world) settled() (wrong func() string) {
	since, changes := w.sim.Since(), 0
	return func() string {
		what := w.missing()
		if what == "" {
			what = w.ledger.unsettled()
		}
		now := w.ledger.changes()
		if what != "" || now != changes {
			since, changes = w.sim.Since(), now
		}
		if what == "" && w.sim.Since()-since < calm {
			what = "jobs move, though nothing has changed"
		}
		return what
	}
}

// missing says which machine is still to come.
func (w *world) missing() string {
	for _, m := range w.machines {
		m.mu.Lock()
		away := m.up == nil && !m.gone
		m.mu.Unlock()
		if away {
			return m.host.Name + " has not come up"
		}
	}
	return ""
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

// run is the life of a machine: a process joins, works, and joins again when its session was
// lost, until it crashes, leaves or restarts; and another comes after it, or not.
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
		back, wait := m.first || m.r.IntN(3) > 0, upTo(m.r, 3)
		if over := m.live(s); over {
			m.leave(s, "", (*heartbeat.Session).Leave)
			return
		}
		switch way := m.r.IntN(4); {
		case s.Err() != nil:
			m.leave(s, sawLoss, (*heartbeat.Session).Leave)
			if m.r.IntN(2) == 0 {
				p = m.start()
			}
			continue
		case way < 2:
			m.crash(s)
		case way < 3:
			m.host.Stand()
			m.leave(s, sawLeave, (*heartbeat.Session).Leave)
		default:
			m.host.Stand()
			m.leave(s, sawRestart, (*heartbeat.Session).Restart)
			wait /= 3
		}
		p = m.start()
		if !back || !m.pause(wait) {
			m.mu.Lock()
			m.gone = true
			m.mu.Unlock()
			return
		}
	}
}

// start starts a process that hears what others change, or hears nothing, or knows that it hears
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
	if life := upTo(m.r, 2*chaos.Seconds()); m.w.sim.Since()+life < chaos {
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
		session, err := heartbeat.Join(ctx, p.DB, heartbeat.Config{Name: m.host.Name, TTL: m.ttl, Labels: m.labels})
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
	s := &member{Session: session, machine: m, process: p, r: rand.New(rand.NewPCG(m.r.Uint64(), 0))}
	s.ctx, s.cancel = context.WithCancel(m.w.life)
	m.w.ledger.joined(s)
	m.mu.Lock()
	m.up = s
	m.mu.Unlock()
	s.working.Go(s.serve)
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
func (m *machine) leave(s *member, how string, leave func(*heartbeat.Session, context.Context) error) {
	m.ended(s, how)
	if err := leave(s.Session, m.w.t.Context()); err != nil {
		m.w.sim.Note(m.host.Name, "leave: %v", err)
	}
	s.cancel()
	s.working.Wait()
}

// crash ends a process, of which nobody hears any more.
func (m *machine) crash(s *member) {
	m.ended(s, sawCrash)
	s.crashed.Store(true)
	s.process.Kill()
	s.cancel()
	m.w.behind.Go(func() {
		s.Leave(m.w.t.Context())
		s.working.Wait()
	})
}

// failOver lets another server take over in some worlds, which has not all that was committed;
// in some, another once more.
func (w *world) failOver() {
	r := w.sim.Rand("failover")
	for at := upTo(r, chaos.Seconds()); r.IntN(4) == 0; at = upTo(r, 3) {
		time.Sleep(at)
		if w.sim.Since() > chaos*3/4 || !w.ledger.accepted() {
			return // a database that knows of no history yet is taken for a new one
		}
		snapshot := w.sim.Snapshot()
		time.Sleep(upTo(r, 1.5))
		w.sim.FailOver(snapshot, w.ledger.failedOver)
	}
}

// operate is what somebody at the keyboard does, and what comes in from users: jobs are changed,
// and the group's options; members are drained, often at a bad moment, and forgotten. In the end somebody is there who
// may lead, and own something.
func (w *world) operate() {
	o := &operator{world: w, r: w.sim.Rand("operator"), db: w.sim.Hosts[0].DB}
	for next := upTo(o.r, 0.5); w.sim.Since() < chaos; time.Sleep(tick) {
		o.db = w.sim.Hosts[o.r.IntN(len(w.sim.Hosts))].DB
		ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Second)
		some := w.ledger.awaiting(w.members())
		switch due := w.sim.Since() >= next; {
		case len(some) > 0 && o.r.IntN(2) == 0:
			o.order(ctx, some[0], sawDrain, heartbeat.Drain)
		case !due:
		case o.r.IntN(5) == 0:
			o.drain(ctx)
		case o.r.IntN(8) == 0:
			o.options(ctx)
		default:
			o.jobs(ctx)
		}
		if w.sim.Since() >= next {
			next = w.sim.Since() + upTo(o.r, 0.5)
		}
		cancel()
	}
	time.Sleep(chaos - w.sim.Since())
	g := group(o.r)
	g.Selector = nil
	for assign.Define(w.t.Context(), o.db, g) != nil {
		time.Sleep(tick)
	}
	all := o.r.IntN(2) == 0
	for _, s := range w.members() {
		if all || s.machine.first {
			o.order(w.t.Context(), s, sawUndrain, heartbeat.Undrain)
		}
	}
}

// operator is the one at the keyboard.
type operator struct {
	*world
	r  *rand.Rand
	db *coordd.DB
}

func (o *operator) order(ctx context.Context, s *member, what string, order func(context.Context, *coordd.DB, string, ...heartbeat.By) error) {
	o.ledger.ordered(s.ID(), what)
	if err := order(ctx, o.db, s.ID()); err == nil {
		o.sim.Note("operator", "%s: %s", tail(s.ID()), what)
		o.ledger.saw(what)
	}
}

// drain drains or undrains a member, or forgets it.
func (o *operator) drain(ctx context.Context) {
	members := o.members()
	if len(members) == 0 {
		return
	}
	s := members[o.r.IntN(len(members))]
	switch {
	case o.r.IntN(6) == 0:
		o.order(ctx, s, sawCondemned, heartbeat.Forget)
	case s.Draining():
		o.order(ctx, s, sawUndrain, heartbeat.Undrain)
	default:
		o.order(ctx, s, sawDrain, heartbeat.Drain)
	}
}

func (o *operator) options(ctx context.Context) {
	g := group(o.r)
	err := assign.Define(ctx, o.db, g)
	o.sim.Note("operator", "options %v: %v", g, err)
	if err == nil {
		o.ledger.saw(sawOptions)
	}
}

// jobs changes some jobs, in this or that way.
func (o *operator) jobs(ctx context.Context) {
	key := fmt.Sprint("job-", o.r.IntN(simJobs+5))
	spec := assign.Spec{Key: key, Payload: fmt.Sprint(o.r.IntN(1000)), Weight: 1 + o.r.IntN(3), Paused: o.r.IntN(4) == 0}
	if o.r.IntN(4) == 0 {
		spec.Labels = map[string]string{"size": fmt.Sprint(o.r.IntN(3))}
	}
	var err error
	saw := sawJobs
	switch o.r.IntN(8) {
	case 0, 1:
		_, err = assign.Add(ctx, o.db, simGroup, spec, assign.Spec{Key: key + "-b"})
	case 2:
		err = assign.Update(ctx, o.db, simGroup, spec)
	case 3:
		err = assign.Remove(ctx, o.db, simGroup, key)
	case 4:
		err = assign.Pause(ctx, o.db, simGroup, key)
	case 5:
		err = assign.Resume(ctx, o.db, simGroup, key)
	default:
		saw = sawJobsTx
		err = o.jobsTx(ctx, spec)
	}
	o.sim.Note("operator", "%s, %v: %v", key, spec.Paused, err)
	if err == nil {
		o.ledger.saw(saw)
	}
}

var errRolledBack = errors.New("rolled back")

// jobsTx adds and removes jobs in a transaction of its own.
func (o *operator) jobsTx(ctx context.Context, spec assign.Spec) error {
	tx, err := o.db.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if o.r.IntN(2) == 0 {
		_, err = assign.AddTx(ctx, o.db, tx, simGroup, spec)
	} else if err = assign.RemoveTx(ctx, o.db, tx, simGroup, spec.Key); errors.Is(err, coordd.ErrNone) {
		_, err = assign.AddTx(ctx, o.db, tx, simGroup, spec)
	}
	if err == nil && o.r.IntN(4) == 0 {
		err = errRolledBack
	}
	if err != nil {
		return err
	}
	return tx.Commit()
}

// bell is a coordd.Listener. It rings for those who wait.
type bell struct {
	mu    sync.Mutex
	last  int
	rings map[int]func()
}

func (b *bell) Err() error { return nil }

func (b *bell) Listen(_ string, ring func()) (stop func()) {
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
