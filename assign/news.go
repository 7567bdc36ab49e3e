package assign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// readEvents learns in which slots jobs have changed.
func (k *keeper) readEvents(ctx context.Context, revision int64) error {
	for k.cursor < revision {
		page, err := k.readPage(ctx)
		switch {
		case errors.Is(err, journal.ErrCompacted):
			for slot := range k.slots {
				k.dirty[slot] = true
			}
			for slot := range k.ahead {
				k.ahead[slot] = nil
			}
			k.cursor = page.Revision
			k.jobsNews()
			return nil
		case errors.Is(err, coordd.ErrHistoryLost):
			return nil // the session is about to end
		case err != nil:
			return fmt.Errorf("read which jobs of group %q have changed: %w", k.group, err)
		}
		for _, e := range page.Events {
			k.take(e)
		}
		if page.Next <= k.cursor {
			return nil // another node of a cluster has answered, that does not have them yet
		}
		k.cursor = page.Next
	}
	return nil
}

// eventsAtOnce is how many events are read by one statement.
const eventsAtOnce = 500

func (k *keeper) readPage(ctx context.Context) (journal.Page, error) {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	return journal.Read(ctx, k.DB.Queries, k.cursor, eventsAtOnce, Topic)
}

func (k *keeper) take(e journal.Event) {
	if e.Subject != k.group || e.Action != actionChanged {
		return
	}
	var c change
	if err := json.Unmarshal([]byte(e.Data), &c); err != nil {
		k.log.Error("an event about jobs is not read", "group", k.group, "revision", e.Revision, "error", err)
		return
	}
	for _, slot := range c.Slots {
		if k.slots[slot] != nil {
			k.dirty[slot] = true
		}
		if k.ahead[slot] != nil {
			k.ahead[slot] = nil
		}
	}
	k.jobsNews()
}

// slotsAtOnce is of how many slots the jobs are read by one statement; of fewer after one that has
// failed, as what was too much may be the cause. What arrives waits for one such statement at most.
const slotsAtOnce = 100

// loadJobs reads the jobs of slots that are new here, or whose jobs have changed; and then of those that are
// on their way to here, so that nobody waits for that when they arrive.
func (k *keeper) loadJobs(ctx context.Context) error {
	var some, coming []int
	for slot := range k.dirty {
		switch h := k.slots[slot]; {
		case h == nil || h.phase != running || h.gone:
			delete(k.dirty, slot)
		case k.ahead[slot] != nil:
			k.begin(h, k.ahead[slot])
		default:
			some = append(some, slot)
		}
	}
	for slot, jobs := range k.ahead {
		if k.slots[slot] != nil || time.Now().After(k.expects) {
			delete(k.ahead, slot)
		} else if jobs == nil {
			coming = append(coming, slot)
		}
	}
	slices.Sort(coming)
	urgent, done := len(some), 0
	some = append(some, coming...)
	for began := time.Now(); done < len(some) && ctx.Err() == nil && k.session.Valid(); { // the session's deadline ends all of them
		if done > urgent || time.Since(began) > nearPoll { // what has arrived meanwhile, or is to move, goes first
			k.poke()
			return nil
		}
		part := some[done:min(done+k.atOnce, len(some))]
		done += len(part)
		jobs, err := k.readJobs(ctx, part)
		if err != nil {
			k.atOnce = max(1, k.atOnce/2)
			return fmt.Errorf("read the jobs of group %q: %w", k.group, err)
		}
		k.atOnce = min(2*k.atOnce, slotsAtOnce)
		for _, slot := range part {
			if h := k.slots[slot]; h != nil {
				k.begin(h, jobs[slot])
			} else {
				k.ahead[slot] = append([]Job{}, jobs[slot]...)
			}
		}
	}
	return nil
}

// begin says which jobs a slot has.
func (k *keeper) begin(h *holding, jobs []Job) {
	delete(k.dirty, h.slot)
	if !h.valid() {
		return
	}
	for i := range jobs {
		jobs[i].holding = h
	}
	k.crews.set(h, jobs)
}

func (k *keeper) readJobs(ctx context.Context, slots []int) (map[int][]Job, error) {
	ctx, cancel := context.WithTimeout(ctx, k.TTL) // it may be many
	defer cancel()
	stmt, args := jobsOf(k.group, slots)
	type row struct {
		slot   int
		j      Job
		labels string
	}
	found, err := coordd.All(ctx, k.DB.Queries, func(r *row) []any {
		return []any{&r.slot, &r.j.Key, &r.j.Payload, &r.labels, &r.j.Weight}
	}, stmt, args...)
	if err != nil {
		return nil, err
	}
	jobs := map[int][]Job{}
	for _, r := range found {
		if r.labels != "null" {
			if err := json.Unmarshal([]byte(r.labels), &r.j.Labels); err != nil {
				k.log.Error("a job is run without its labels, which cannot be read", "group", k.group, "job", r.j.Key, "error", err)
			}
		}
		jobs[r.slot] = append(jobs[r.slot], r.j)
	}
	return jobs, nil
}

// jobsOf is a statement that reads the jobs of some slots.
func jobsOf(group string, slots []int) (stmt string, args []any) {
	args = append(args, group)
	for _, slot := range slots {
		args = append(args, slot)
	}
	return stmtJobsOf + rows("?", len(slots)) + ")", args
}
