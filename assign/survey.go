package assign

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
)

// brief reads all but the slots, which may be many.
func (t *planning) brief(ctx context.Context) (s state, version int64, err error) {
	ctx, cancel := t.k.bounded(ctx)
	defer cancel()
	if err = t.k.DB.Get(ctx, []any{&version}, stmtVersion, t.k.group); err == nil {
		s.group, err = readGroup(ctx, t.k.DB.Queries, t.k.group)
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoGroup
	}
	if err != nil {
		return s, 0, fmt.Errorf("read group %q: %w", t.k.group, err)
	}
	s.group.Options = s.group.Defaults()
	s.servers, err = readServers(ctx, t.k.DB.Queries, t.k.group)
	return s, version, err
}

func readServers(ctx context.Context, q coordd.Queries, group string) ([]server, error) {
	type row struct {
		server
		labels, load string
	}
	found, err := coordd.All(ctx, q, func(r *row) []any {
		return []any{&r.id, &r.name, &r.labels, &r.state, &r.load, &r.seen}
	}, stmtServers, group)
	if err != nil {
		return nil, fmt.Errorf("read who serves group %q: %w", group, err)
	}
	servers := make([]server, 0, len(found))
	for _, r := range found {
		if err := json.Unmarshal([]byte(r.labels), &r.server.labels); err != nil {
			return nil, fmt.Errorf("labels of member %s: %w", r.id, err)
		}
		if r.load != "" {
			var load heartbeat.Load
			if err := json.Unmarshal([]byte(r.load), &load); err != nil {
				return nil, fmt.Errorf("load of member %s: %w", r.id, err)
			}
			r.cpu = load.CPU
		}
		servers = append(servers, r.server)
	}
	return servers, nil
}

func (t *planning) read(ctx context.Context) ([]slotRow, error) {
	ctx, cancel := context.WithTimeout(ctx, t.k.TTL) // it may be many
	defer cancel()
	return readSlots(ctx, t.k.DB.Queries, t.k.group)
}

func readSlots(ctx context.Context, q coordd.Queries, group string) ([]slotRow, error) {
	slots, err := coordd.All(ctx, q, func(r *slotRow) []any {
		return []any{&r.slot, &r.owner, &r.target, &r.epoch, &r.version, &r.ownerState, &r.ownerName, &r.targetState}
	}, stmtSlots, group)
	if err != nil {
		return nil, fmt.Errorf("read the slots of group %q: %w", group, err)
	}
	return slots, nil
}

// stmtMoving is how many slots are on their way, and how many nobody owns.
const stmtMoving = `select count(target), count(*) - count(owner) from coordd_slots where grp = ?`

// early says whether most of what may be on its way still is, and each slot has an owner: every hand-over
// changes slots, and to read all of them each time would slow it down. What else there may be to
// do is found by a plan some times a second.
func (t *planning) early(ctx context.Context, g Group) (bool, error) {
	ctx, cancel := t.k.bounded(ctx)
	defer cancel()
	var moving, free int
	err := t.k.DB.Get(ctx, []any{&moving, &free}, stmtMoving, t.k.group)
	if err != nil {
		return false, fmt.Errorf("count the slots of group %q that are on their way: %w", t.k.group, err)
	}
	return moving > g.room()/2 && free == 0, nil
}

// mostUncounted is how often jobs may not be counted before all slots are taken to weigh the same.
const mostUncounted = 3

// count counts what the jobs of each slot weigh. Where that fails the plan is made of what was
// counted before, if it ever was: a slot that nobody owns matters more than how much it weighs.
func (t *planning) count(ctx context.Context, slots int) {
	bounded, cancel := context.WithTimeout(ctx, t.k.TTL) // it may be many
	defer cancel()
	began := time.Now()
	t.jobs.Store(false)
	loads, err := readLoads(bounded, t.k.DB.Queries, t.k.group, slots)
	t.counted, t.took = time.Now(), time.Since(began)
	if err == nil {
		t.loads, t.uncounted = loads, 0
		return
	}
	t.jobs.Store(true)
	if len(t.loads) != slots { // it is another group than it was
		t.loads = nil
	}
	if t.uncounted++; t.loads == nil && t.uncounted >= mostUncounted {
		t.loads = make([]float64, slots)
	}
	if ctx.Err() == nil {
		t.cfg.Logger.Warn("jobs cannot be counted; the plan goes by what they were, and where that is not known nothing is evened out for a while", "group", t.k.group, "error", err)
	}
}

func readLoads(ctx context.Context, q coordd.Queries, group string, slots int) ([]float64, error) {
	type row struct {
		slot   int
		weight float64
	}
	found, err := coordd.All(ctx, q, func(r *row) []any { return []any{&r.slot, &r.weight} }, stmtLoads, group)
	if err != nil {
		return nil, fmt.Errorf("count the jobs of group %q: %w", group, err)
	}
	loads := make([]float64, slots)
	for _, r := range found {
		if r.slot >= 0 && r.slot < slots {
			loads[r.slot] = r.weight
		}
	}
	return loads, nil
}
