package assign

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// Whoever changes slots counts the plan's version up first, which keeps the group's row locked
// until the commit, and stamps what it changes with it. So versions come in the order of commits,
// and whoever has read version v has seen all that bears v or less.
const (
	// stmtNextVersion also asks for the history. 0 rows: it is in doubt, or there is no such group.
	stmtNextVersion = `update coordd_groups set plan_version = plan_version + 1 where name = ? and ` + journal.Trusted
	stmtVersion     = `select plan_version from coordd_groups where name = ?`

	// stmtPlan is what has changed of a member's slots since a version, and of those that are
	// on their way to it; and whether the member is known to serve the group. One row without a
	// slot: nothing. 0 rows: there is no such group.
	stmtPlan = `select g.plan_version, r.value, case when ` + journal.Trusted + ` then 1 else 0 end, case when me.member_id is null then 0 else 1 end,
			coalesce(s.slot, -1), coalesce(s.owner, ''), coalesce(s.target, ''), coalesce(s.epoch, 0), coalesce(s.version, 0), coalesce(t.seen, -1)
		from coordd_groups g
		join coordd_meta r on r.name = 'revision'
		left join coordd_group_members me on me.grp = g.name and me.member_id = ?
		left join coordd_slots s on s.grp = g.name and s.version > ? and (s.owner = ? or s.target = ?)
		left join coordd_group_members t on t.grp = s.grp and t.member_id = s.target
		where g.name = ?`

	stmtServe = `insert into coordd_group_members (grp, member_id, seen, since_us, client) values (?, ?, 0, {now}, ?) {or keep seen}` // 0 rows: it does already
	stmtSeen  = `update coordd_group_members set seen = ? where grp = ? and member_id = ? and seen < ?`                               // 0 rows: it is known

	// Each names the owner and the epochs that it comes from, by andEpochs. Fewer rows than slots:
	// the plan has changed.
	stmtHandOver = `update coordd_slots set owner = target, target = null, epoch = epoch + 1, version = ?
		where grp = ? and owner = ? and target = ? and slot in (`
	// stmtRetake makes a hand-over impossible that may be under way, of a slot that is not to move after all.
	stmtRetake = `update coordd_slots set epoch = epoch + 1, version = ?
		where grp = ? and owner = ? and target is null and slot in (`
	stmtGiveBack = `update coordd_slots set owner = null, target = null, epoch = epoch + 1, version = ?
		where grp = ? and owner = ? and slot in (`
	// andEpochs follows the numbers of slots, by which they are found; by pairs a database finds
	// each by a search of its own, or compares all of them with all slots of the group.
	andEpochs = `) and (slot + 0, epoch) in (`
	pair      = `(?, ?)`

	// stmtDecline takes a member's name off what others are to hand to it.
	stmtDecline = `update coordd_slots set target = null, version = ? where grp = ? and target = ?`

	stmtOwned   = `select slot, epoch from coordd_slots where grp = ? and owner = ?`
	stmtUnserve = `delete from coordd_group_members where grp = ? and member_id = ?` // 0 rows: it does not serve the group

	// stmtJobsOf ends with slots. PostgreSQL may read all jobs of the group for it until it has
	// statistics of those that have just been added, which it makes within a minute: at worst some
	// 60 ms, where there are 300,000.
	stmtJobsOf = `select slot, job_key, payload, labels, weight from coordd_jobs where grp = ? and paused = 0 and slot in (`
)

// pairsAtOnce is how many slots one statement changes, and how many an owner stops at once: with
// more each waits longer for its next owner, with fewer all of them together take longer.
const pairsAtOnce = 64

// errDoubt says that nothing can be given or taken now: there was a failover, and the session is
// about to end, or the quarantine.
var errDoubt = fmt.Errorf("%w: it is in doubt which of it is left", coordd.ErrHistoryLost)

// nextVersion begins a change of slots in a transaction.
func (k *keeper) nextVersion(ctx context.Context, tx coordd.Queries) (version int64, err error) {
	changed, err := tx.Exec(ctx, stmtNextVersion, k.group, k.History)
	if err != nil {
		return 0, err
	}
	err = tx.Get(ctx, []any{&version}, stmtVersion, k.group)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		err = ErrNoGroup
	case err == nil && changed == 0:
		err = errDoubt
	}
	return version, err
}

// slotEpoch is a slot as it was when somebody decided about it.
type slotEpoch struct {
	slot  int
	epoch int64
}

// enough is when a transaction that changes slots from now on leaves the others to the next one:
// after the most that it is to take, or half of the time that it has. So a database that is slow
// gets there nevertheless, and the group's row is not locked for long.
func (k *keeper) enough(ctx context.Context, most time.Duration) time.Time {
	now := time.Now()
	deadline, _ := ctx.Deadline()
	return now.Add(min(most, deadline.Sub(now)/2))
}

// move runs one of the statements that end with slots and their epochs, a part of them at a time,
// and returns the pairs that it has not come to. There is time for the first part if until comes
// from enough just before.
func move(ctx context.Context, tx coordd.Queries, until time.Time, stmt string, args []any, pairs []slotEpoch) (moved int64, rest []slotEpoch, err error) {
	for len(pairs) > 0 && time.Now().Before(until) {
		part := pairs[:min(pairsAtOnce, len(pairs))]
		all := args[:len(args):len(args)]
		for _, p := range part {
			all = append(all, p.slot)
		}
		for _, p := range part {
			all = append(all, p.slot, p.epoch)
		}
		n, err := tx.Exec(ctx, stmt+rows("?", len(part))+andEpochs+rows(pair, len(part))+")", all...)
		if err != nil {
			return moved, pairs, err
		}
		pairs = pairs[len(part):]
		moved += n
	}
	return moved, pairs, nil
}

// planned is an event that tells of changed slots.
func planned(group, action, member string, version int64, slots int64) journal.Event {
	data, _ := json.Marshal(map[string]int64{"version": version, "slots": slots}) // numbers have no way to fail
	return journal.Event{Topic: Topic, Subject: group, Action: action, MemberID: member, Data: string(data)}
}

// planRow is one of stmtPlan.
type planRow struct {
	version, revision int64
	trusted, serves   bool
	slot              int
	owner, target     string
	epoch             int64
	stamp, seen       int64 // when the row was changed; and what its target has seen
}

// look reads what has changed of the plan, and which jobs have.
func (k *keeper) look(ctx context.Context) error {
	plan, err := k.readPlan(ctx)
	if err == nil && plan[0].trusted && !plan[0].serves { // it has just begun to, or the group was dropped and made again
		k.anew = true
		clear(k.ahead)
		if err = k.serveGroup(ctx); err == nil {
			plan, err = k.readPlan(ctx)
		}
	}
	if err != nil {
		return err
	}
	if !plan[0].trusted {
		k.anew = true
		return nil // the session is about to end, or the quarantine
	}
	if k.anew {
		for _, h := range k.slots {
			h.gone, h.stale = true, false // unless it is read now
		}
	}
	k.served = k.served || plan[0].serves
	first := k.anew && k.cursor == 0
	k.anew, k.seen = false, plan[0].version
	for _, r := range plan {
		if r.slot >= 0 {
			k.apply(r, k.session.ID())
		}
	}
	if first || k.cursor > plan[0].revision {
		k.cursor = plan[0].revision
	}
	return k.readEvents(ctx, plan[0].revision)
}

// readPlan reads what has changed of the plan since it was read before, and what has to do with
// slots whose target has not yet seen that; or all of it. There is one row at least.
func (k *keeper) readPlan(ctx context.Context) ([]planRow, error) {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	since, me := k.seen, k.session.ID()
	for _, h := range k.slots {
		if h.target != "" && h.awaited && h.phase == running {
			since = min(since, h.stamp-1)
		}
	}
	if k.anew {
		since = -1
	}
	plan, err := coordd.All(ctx, k.DB.Queries, func(r *planRow) []any {
		return []any{&r.version, &r.revision, &r.trusted, &r.serves, &r.slot, &r.owner, &r.target, &r.epoch, &r.stamp, &r.seen}
	}, stmtPlan, k.History, me, since, me, me, k.group)
	if err != nil {
		return nil, fmt.Errorf("read the plan of group %q: %w", k.group, err)
	}
	if len(plan) == 0 {
		return nil, ErrNoGroup
	}
	return plan, nil
}

// apply takes in how one slot stands.
func (k *keeper) apply(r planRow, me string) {
	h := k.slots[r.slot]
	switch {
	case r.owner != me && h == nil:
		k.expects = time.Now().Add(2 * k.TTL) // its owner hands it over
		if _, known := k.ahead[r.slot]; !known {
			k.ahead[r.slot] = nil
		}
	case r.owner != me:
		h.gone, h.stale = true, false
	case h == nil:
		if h = k.takeUp(r.slot, r.epoch); h != nil {
			h.aim(r)
		}
	case h.epoch != r.epoch:
		h.gone, h.again, h.stale = true, true, false
	default:
		h.gone, h.stale = false, false
		h.aim(r)
	}
}

// aim notes who is to be the next owner.
func (h *holding) aim(r planRow) {
	if h.target != r.target {
		h.asked = time.Now()
	}
	h.target, h.stamp, h.awaited = r.target, r.stamp, r.seen < r.stamp
}

// serveGroup says that this member serves the group. It waits its turn as giveBack does, so that
// what was sent and not answered has come to nothing, or is undone, when that has ended.
func (k *keeper) serveGroup(ctx context.Context) error {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	err := k.DB.Tx(ctx, func(tx coordd.Queries) error {
		version, err := k.nextVersion(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, stmtServe, k.group, k.session.ID(), k.client); err != nil {
			return err
		}
		return journal.Append(ctx, tx, planned(k.group, "serving", k.session.ID(), version, 0))
	})
	k.served = k.served || !hopeless(err)
	if err != nil {
		return fmt.Errorf("serve group %q: %w", k.group, err)
	}
	k.told = 0
	journal.Ring(ctx, k.DB)
	return nil
}

// tell tells what was carried out here.
func (k *keeper) tell(ctx context.Context) error {
	if k.told >= k.seen || time.Now().Before(k.tellDue()) {
		return nil
	}
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	if _, err := k.DB.Exec(ctx, stmtSeen, k.seen, k.group, k.session.ID(), k.seen); err != nil {
		return fmt.Errorf("tell what is done of the plan of group %q: %w", k.group, err)
	}
	k.told, k.toldAt = k.seen, time.Now()
	return nil
}

// tellDue is when that is told: at once while slots are on their way to here, as their owners may wait for it,
// and soon where they hear rings, as this member does, and do not; else once a beat.
func (k *keeper) tellDue() time.Time {
	switch {
	case !time.Now().Before(k.expects):
		return k.toldAt.Add(k.Beat)
	case k.DB.Hears():
		return k.toldAt.Add(nearPoll)
	}
	return k.toldAt
}
