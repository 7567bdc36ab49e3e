package assign

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/journal"
)

// electionOf is the election by which it is decided who plans for a group.
func electionOf(group string) string { return "coordd/assign/" + group }

const (
	// stmtServers is who serves a group and lives.
	stmtServers = `select m.id, m.name, m.labels, h.state, coalesce(h.load_json, ''), g.seen
		from coordd_group_members g
		join coordd_heartbeats h on h.member_id = g.member_id and h.state in ('alive', 'draining', 'condemned')
		join coordd_members m on m.id = g.member_id
		where g.grp = ? order by m.id`

	// stmtSlots is every slot with what is true of its owner and its target at the same instant.
	// Who was only compared with a list that was read earlier, and has come since, would count as
	// dead.
	stmtSlots = `select s.slot, coalesce(s.owner, ''), coalesce(s.target, ''), s.epoch, s.version, coalesce(o.state, ''), coalesce(m.name, ''), coalesce(t.state, '')
		from coordd_slots s
		left join coordd_heartbeats o on o.member_id = s.owner
		left join coordd_members m on m.id = s.owner
		left join coordd_heartbeats t on t.member_id = s.target
		where s.grp = ? order by s.slot`

	// stmtLoads is what the jobs of each slot weigh. It groups by what no index has: to follow that of slots costs
	// a random read a job.
	stmtLoads = `select of_slot, sum(weight) from (select slot + 0 as of_slot, weight from coordd_jobs where grp = ? and paused = 0) j group by of_slot`

	// stmtServing is who serves a group, alive or not.
	stmtServing = `select member_id from coordd_group_members where grp = ?`

	// These change what was read, where it is still so. An owner that has ended never comes back,
	// so the epoch tells.
	stmtOwn = `update coordd_slots set owner = ?, target = null, epoch = epoch + 1, version = ? where grp = ? and slot in (`
	stmtAim = `update coordd_slots set target = ?, version = ? where grp = ? and slot in (`

	// stmtGoneServers is who served a group and has ended. They are removed one by one: on MySQL a
	// delete with a subquery would lock the rows of those who beat.
	stmtGoneServers = `select g.member_id from coordd_group_members g where g.grp = ? and not exists (select 1 from coordd_heartbeats h
		where h.member_id = g.member_id and h.state in ('alive', 'draining', 'condemned'))`
)

// leader plans for a group while its member is elected to.
type leader struct {
	k     *keeper // its group and session; what it knows is not touched
	cfg   Config
	jobs  atomic.Bool // jobs have changed since they were counted
	loads []float64   // what those of each slot weighed then, in this term or an earlier one; nil: that is not known
}

func newLeader(k *keeper, cfg Config) *leader { return &leader{k: k, cfg: cfg} }

func (l *leader) jobsChanged() { l.jobs.Store(true) }

// run takes part in the election until ctx ends or the session is over.
func (l *leader) run(ctx context.Context) {
	for {
		err := election.Run(ctx, l.k.session, election.Config{Name: electionOf(l.k.group), Logger: l.cfg.Logger}, l.lead)
		if ctx.Err() != nil || l.k.session.Status() == heartbeat.Over {
			return
		}
		l.cfg.Logger.Warn("this member is no candidate for planning a group; it is again in a moment", "group", l.k.group, "error", err)
		sleep(ctx, retryPause, nil)
	}
}

// lead plans, again and again, for one term.
func (l *leader) lead(ctx context.Context, term *election.Leadership) error {
	rings, stop := l.k.DB.Listen("")
	defer stop()
	t := &planning{leader: l, term: term, memory: newMemory()}
	for failing := false; ctx.Err() == nil; {
		news := l.k.News()
		err := t.round(ctx)
		if err != nil {
			clear(t.memory.lags) // nobody could obey, perhaps
		}
		if err != nil && ctx.Err() == nil && !failing {
			l.cfg.Logger.Warn("a group is not planned for; it is tried again until it is", "group", l.k.group, "error", err)
		}
		failing = err != nil
		if t.more && !failing {
			continue
		}
		if sleep(ctx, coalesce, nil) && t.flying {
			sleep(ctx, landing, nil)
		}
		t.rest(ctx, news, rings, failing)
	}
	return nil
}

// planning is one term.
type planning struct {
	*leader
	term   *election.Leadership
	memory *memory

	last      basis // of the latest plan; zero: it is to be made anew
	again     time.Time
	flying    bool          // slots are on their way
	more      bool          // a part of the plan was written, and not all of it
	most      int           // of how many slots a transaction may be, after one that failed; 0: of any number
	weigher   *unhurried    // of a strategy that decides on the shares; nil: it does not
	counted   time.Time     // when they were counted
	uncounted int           // how often they could not be since then
	took      time.Duration // to count them
	tidied    time.Time     // when those were removed who have ended
	drained   time.Time     // when the outbox was looked at
}

// How often a leader looks though nothing has changed.
const (
	replan    = 30 * time.Second // it plans, whatever has happened
	recount   = time.Minute      // it counts jobs at the latest, if any have changed
	countCost = 20               // and not before it has done other things for so many times as long
	drainRest = time.Second
	landing   = 20 * time.Millisecond // while slots are on their way, which ring as they arrive
)

// rest waits for a reason to look.
func (t *planning) rest(ctx context.Context, news, rings <-chan struct{}, failing bool) {
	pause := 2 * t.k.Beat
	switch {
	case (t.flying || failing) && t.k.DB.Hears():
		pause = farPoll
	case t.flying || failing:
		pause = nearPoll
	}
	if !t.again.IsZero() && !failing { // it may be long past
		pause = max(0, min(pause, time.Until(t.again)))
	}
	if t.jobs.Load() && !failing {
		pause = min(pause, max(0, time.Until(t.countDue())))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-news:
	case <-rings:
	case <-timer.C:
	}
}

// countDue is when changed jobs are counted.
func (t *planning) countDue() time.Time {
	return t.counted.Add(min(max(time.Second, countCost*t.took), recount))
}

// round looks whether anything has changed, and if so plans.
func (t *planning) round(ctx context.Context) error {
	t.more = false
	t.drain(ctx)
	s, version, err := t.brief(ctx)
	if err != nil {
		return err
	}
	if t.counted.IsZero() || t.jobs.Load() && !time.Now().Before(t.countDue()) {
		t.count(ctx, s.group.Slots)
		t.last = basis{}
	}
	now := basis{version, s.digest()}
	if now.digest == t.last.digest && (t.again.IsZero() || time.Now().Before(t.again)) {
		early := now == t.last
		if !early && t.flying {
			if early, err = t.early(ctx, s.group); early {
				t.last, t.again = now, earlier(t.again, time.Now().Add(nearPoll))
			}
		}
		if early || err != nil {
			return err
		}
	}
	t.last = basis{}
	s.loads = t.loads
	if s.slots, err = t.read(ctx); err != nil {
		return err
	}
	planner, err := t.planner(s.group)
	if err != nil {
		return err
	}
	o := t.memory.decide(s, planner, time.Now())
	t.flying = o.flying > 0 || o.any()
	if time.Since(t.tidied) > replan {
		t.tidied = time.Now()
		t.tidy(ctx)
	}
	o.by(time.Now().Add(replan))
	t.again = o.again
	if o.any() {
		written, err := t.carryOut(ctx, o)
		if err == nil && written == version+1 && !o.leaving { // nobody has changed anything since it was read
			t.last = basis{written, now.digest}
			t.again = earlier(t.again, time.Now().Add(farPoll)) // to see whether it is obeyed
		}
		return err
	}
	if !o.leaving { // or the end of who is not among the servers would go unnoticed
		t.last = now
	}
	return nil
}

// basis is what a plan is made of, but for the slots themselves and what their jobs weigh.
type basis struct {
	version int64 // of the slots
	digest  string
}

// digest changes with the group and its servers.
func (s state) digest() string {
	var b strings.Builder
	fmt.Fprint(&b, s.group)
	for _, sv := range s.servers {
		fmt.Fprint(&b, sv.id, sv.state, sv.labels)
	}
	return b.String()
}

// drain moves what callers' own transactions have added out of the outbox, which whoever can does.
func (t *planning) drain(ctx context.Context) {
	if time.Since(t.drained) < drainRest {
		return
	}
	t.drained = time.Now()
	ctx, cancel := t.k.bounded(ctx)
	defer cancel()
	some := false
	for more := true; more; {
		moved, err := journal.Drain(ctx, t.k.DB)
		some, more = some || moved > 0, moved == journal.Batch && err == nil
	}
	if some {
		journal.Ring(ctx, t.k.DB)
	}
}

func (t *planning) planner(g Group) (Planner, error) {
	if t.cfg.Planner != nil {
		return t.cfg.Planner, nil
	}
	placer, err := PlacerByName(g.Strategy)
	if err != nil {
		return nil, fmt.Errorf("group %q: %w; whoever leads it must know its strategy", g.Name, err)
	}
	if w, ok := placer.(Weigher); ok {
		if t.weigher == nil || t.weigher.Weigher != w {
			t.weigher = &unhurried{Placer: placer, Weigher: w}
		}
		placer = t.weigher
	}
	return Sticky(placer), nil
}

// carryOut writes a plan, if this member still leads, and condemns who does not obey: nobody does
// where the group is locked, or its leader is another.
//
// It returns the plan's version if all of it was written, or 0.
func (t *planning) carryOut(ctx context.Context, o orders) (version int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.k.TTL) // it may be many
	defer cancel()
	err = t.k.DB.InTx(ctx, func(tx *sql.Tx) (err error) {
		version, err = t.write(ctx, tx, o)
		return err
	})
	if err != nil {
		t.fewer(int(o.slots()))
		return 0, fmt.Errorf("write the plan of group %q: %w", t.k.group, err)
	}
	if t.most *= 2; !t.more {
		t.most = 0
	}
	journal.Ring(ctx, t.k.DB)
	for _, id := range o.condemn {
		if err := t.k.condemn(ctx, id, "it beats and does not carry out the plan"); err != nil {
			return 0, err
		}
	}
	return version, nil
}

// fewer has half as many slots written at once: one of them may be locked, by a transaction whose process
// has frozen, and the others are not to wait for it.
func (t *planning) fewer(slots int) {
	if t.most > 0 {
		slots = min(slots, t.most)
	}
	t.most = max(1, slots/2)
}

// tidy removes those who served the group and have ended.
func (t *planning) tidy(ctx context.Context) {
	ctx, cancel := t.k.bounded(ctx)
	defer cancel()
	gone, err := coordd.All(ctx, t.k.DB.Queries, func(id *string) []any { return []any{id} }, stmtGoneServers, t.k.group)
	for _, id := range gone {
		if err == nil {
			_, err = t.k.DB.Exec(ctx, stmtUnserve, t.k.group, id) // what fails is done the next time
		}
	}
}

// write writes a plan. It returns no version if that was the first part only, or some of it is no
// longer so: the next round plans anew. The guard comes first, as the rows that everybody needs
// come last.
func (t *planning) write(ctx context.Context, tx *sql.Tx, o orders) (version int64, err error) {
	if err := t.term.Guard(ctx, tx); err != nil {
		return 0, err
	}
	q, group := t.k.DB.On(tx), t.k.group
	if version, err = t.k.nextVersion(ctx, q); err != nil {
		return 0, err
	}
	wanted := o.slots()
	if err := o.restrict(ctx, q, group); err != nil {
		return 0, err
	}
	t.more = t.most > 0 && o.cut(t.most)
	until := t.k.enough(ctx, t.k.Timeout/2) // twice as long as others: nobody looks after what it gives
	var owned, aimed int64
	for _, to := range slices.Sorted(maps.Keys(o.own)) {
		n, rest, err := move(ctx, q, until, stmtOwn, []any{to, version, group}, o.own[to])
		if err != nil {
			return 0, err
		}
		t.more = t.more || len(rest) > 0
		owned += n
	}
	for _, to := range slices.Sorted(maps.Keys(o.aim)) {
		var target any // null: it stays
		if to != "" {
			target = to
		}
		n, rest, err := move(ctx, q, until, stmtAim, []any{target, version, group}, o.aim[to])
		if err != nil {
			return 0, err
		}
		t.more = t.more || len(rest) > 0
		aimed += n
	}
	if owned+aimed > 0 {
		t.cfg.Logger.Info("planned", "group", group, "version", version, "given", owned, "to move", aimed)
		if err := journal.Append(ctx, q, planned(group, "planned", t.k.session.ID(), version, owned+aimed)); err != nil {
			return 0, err
		}
	}
	if owned+aimed < wanted {
		return 0, nil
	}
	return version, nil
}

// cut leaves out all but so many slots, chosen by chance, and says whether there were more.
func (o orders) cut(most int) (more bool) {
	for _, by := range []map[string][]slotEpoch{o.own, o.aim} {
		for to, all := range by {
			rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			by[to] = all[:min(most, len(all))]
			most -= len(by[to])
			more = more || len(by[to]) < len(all)
		}
	}
	return more
}

// restrict leaves out what goes to members that do not serve the group any more: nobody would look
// after it. Whoever ceases to serve it waits for the end of this transaction.
func (o orders) restrict(ctx context.Context, tx coordd.Queries, group string) error {
	serving, err := coordd.All(ctx, tx, func(id *string) []any { return []any{id} }, stmtServing, group)
	if err != nil {
		return err
	}
	absent := func(to string, _ []slotEpoch) bool { return to != "" && !slices.Contains(serving, to) }
	maps.DeleteFunc(o.own, absent)
	maps.DeleteFunc(o.aim, absent)
	return nil
}
