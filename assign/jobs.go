package assign

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/journal"
	"github.com/coordd/coordd/internal/name"
)

// Spec is what somebody says of a job. Only Key is needed.
type Spec struct {
	Key     string            // its name within the group; it decides in which slot the job is, for ever
	Payload string            // for the function of the job; UTF-8 without a zero byte, at most 64 KiB
	Labels  map[string]string // for people
	Weight  int               // its share of the load, at least 1; 0 means 1
	Paused  bool              // nobody runs it
}

const maxPayload = 64 << 10

func (j Spec) check() error {
	if err := name.Check("job key", j.Key); err != nil {
		return fmt.Errorf("%w: %w", coordd.ErrInvalid, err)
	}
	switch {
	case len(j.Payload) > maxPayload || !utf8.ValidString(j.Payload) || strings.Contains(j.Payload, "\x00"):
		return fmt.Errorf("%w: job %q: its payload must be UTF-8 without a zero byte, and at most %d bytes", coordd.ErrInvalid, j.Key, maxPayload)
	case j.Weight < 0 || j.Weight > 1e6:
		return fmt.Errorf("%w: job %q: weight %d: it must be between 1 and a million", coordd.ErrInvalid, j.Key, j.Weight)
	}
	for k, v := range j.Labels {
		if err := errors.Join(name.Check("label", k), name.CheckOptional("value of label "+k, v)); err != nil {
			return fmt.Errorf("%w: job %q: %w", coordd.ErrInvalid, j.Key, err)
		}
	}
	return nil
}

// columns are the arguments of a row.
func (j Spec) columns(group string, slots int) ([]any, error) {
	labels, err := json.Marshal(j.Labels)
	if err != nil {
		return nil, err
	}
	return []any{group, j.Key, SlotOf(j.Key, slots), j.Payload, string(labels), max(j.Weight, 1), flag(j.Paused)}, nil
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

const (
	stmtSlotCount = `select slots from coordd_groups where name = ?` // 0 rows: there is no such group

	stmtAdd = `insert into coordd_jobs (grp, job_key, slot, payload, labels, weight, paused, changed_us) values `
	addRow  = `(?, ?, ?, ?, ?, ?, ?, {now})`
	orKeep  = ` {or keep slot}`

	stmtRemove = `delete from coordd_jobs where grp = ? and job_key = ?`                                               // 0 rows: there is none
	stmtPause  = `update coordd_jobs set paused = ?, changed_us = {now} where grp = ? and job_key = ? and paused <> ?` // 0 rows: there is none, or it is so
	stmtUpdate = `update coordd_jobs set payload = ?, labels = ?, weight = ?, paused = ?, changed_us = {now} where grp = ? and job_key = ?`
	stmtHas    = `select count(*) from coordd_jobs where grp = ? and job_key = ?`
)

// Topic is the topic of events about jobs, with the group as their subject: what changed says in
// which slots. Planned and moved are about slots and their owners.
const Topic = "jobs"

// Add adds jobs, some hundreds in a transaction, and says how many: those that are there already
// stay as they are, so whoever was interrupted adds all of them again. It fails with
// [coordd.ErrInvalid], before anything is written, and with [ErrNoGroup].
func Add(ctx context.Context, db *coordd.DB, group string, jobs ...Spec) (added int, err error) {
	return AddBy(ctx, db, nil, group, jobs...)
}

// AddBy is Add, with who asked for it, for the record.
func AddBy(ctx context.Context, db *coordd.DB, by []heartbeat.By, group string, jobs ...Spec) (added int, err error) {
	for _, j := range jobs {
		if err := j.check(); err != nil {
			return 0, err
		}
	}
	for part := range slices.Chunk(jobs, rowsAtOnce) {
		var n int
		err := db.Tx(ctx, func(tx coordd.Queries) error {
			var slots []int
			var err error
			if n, slots, err = insert(ctx, tx, group, part); err != nil || n == 0 {
				return err
			}
			first := part[0].Key
			if len(part) > 1 {
				first = fmt.Sprintf("%s and %d others", first, len(part)-1)
			}
			return journal.Append(ctx, tx, append(audit("add", group, first, by), changed(group, slots))...)
		})
		if err != nil {
			return added, fmt.Errorf("add jobs to group %q: %w", group, err)
		}
		added += n
	}
	if added > 0 {
		journal.Ring(ctx, db)
	}
	return added, nil
}

// AddTx adds jobs in a transaction of yours: they are there if it is committed. Their owners learn
// of them once the outbox was moved: in a second or so by a daemon, in two beats by whoever leads the group.
func AddTx(ctx context.Context, db *coordd.DB, on coordd.Querier, group string, jobs ...Spec) (added int, err error) {
	for _, j := range jobs {
		if err := j.check(); err != nil {
			return 0, err
		}
	}
	q := db.On(on)
	for part := range slices.Chunk(jobs, rowsAtOnce) {
		n, slots, err := insert(ctx, q, group, part)
		if err == nil && n > 0 {
			err = journal.Outbox(ctx, q, changed(group, slots))
		}
		if err != nil {
			return added, fmt.Errorf("add jobs to group %q: %w", group, err)
		}
		added += n
	}
	return added, nil
}

// insert adds some jobs, and tells in which slots they are.
func insert(ctx context.Context, q coordd.Queries, group string, jobs []Spec) (added int, slots []int, err error) {
	count, err := slotCount(ctx, q, group)
	if err != nil {
		return 0, nil, err
	}
	var args []any
	for _, j := range jobs {
		columns, err := j.columns(group, count)
		if err != nil {
			return 0, nil, err
		}
		args = append(args, columns...)
		slots = append(slots, columns[2].(int))
	}
	n, err := q.Exec(ctx, stmtAdd+rows(addRow, len(jobs))+orKeep, args...)
	return int(n), slots, err
}

func slotCount(ctx context.Context, q coordd.Queries, group string) (slots int, err error) {
	err = q.Get(ctx, []any{&slots}, stmtSlotCount, group)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoGroup
	}
	return slots, err
}

// change is the data of an event that tells of changed jobs.
type change struct {
	Slots []int `json:"slots"`
}

const actionChanged = "changed"

func changed(group string, slots []int) journal.Event {
	slices.Sort(slots)
	data, _ := json.Marshal(change{slices.Compact(slots)}) // numbers have no way to fail
	return journal.Event{Topic: Topic, Subject: group, Action: actionChanged, Data: string(data)}
}

// Remove removes a job. Its owner ends it when it hears of that, in a moment. It fails with
// [ErrNoJob] if there is none. By is who asked for it, for the record.
func Remove(ctx context.Context, db *coordd.DB, group, key string, by ...heartbeat.By) error {
	return alter(ctx, db, by, group, key, "remove", stmtRemove, group, key)
}

// RemoveTx is Remove in a transaction of yours.
func RemoveTx(ctx context.Context, db *coordd.DB, on coordd.Querier, group, key string) error {
	q := db.On(on)
	slots, err := slotCount(ctx, q, group)
	var removed int64
	if err == nil {
		removed, err = q.Exec(ctx, stmtRemove, group, key)
	}
	switch {
	case err == nil && removed == 0:
		err = ErrNoJob
	case err == nil:
		err = journal.Outbox(ctx, q, changed(group, []int{SlotOf(key, slots)}))
	}
	if err != nil {
		return fmt.Errorf("remove job %q of group %q: %w", key, group, err)
	}
	return nil
}

// Pause has nobody run a job any more until Resume. One that is paused stays so.
func Pause(ctx context.Context, db *coordd.DB, group, key string, by ...heartbeat.By) error {
	return alter(ctx, db, by, group, key, "pause", stmtPause, 1, group, key, 1)
}

// Resume has a paused job run again. One that runs stays as it is.
func Resume(ctx context.Context, db *coordd.DB, group, key string, by ...heartbeat.By) error {
	return alter(ctx, db, by, group, key, "resume", stmtPause, 0, group, key, 0)
}

// Update gives a job another payload, labels and weight, and pauses or resumes it. Its function is
// ended and starts anew where the payload or the labels have changed. It fails with
// [ErrNoJob] if there is none.
func Update(ctx context.Context, db *coordd.DB, group string, job Spec, by ...heartbeat.By) error {
	if err := job.check(); err != nil {
		return err
	}
	columns, err := job.columns(group, 1)
	if err != nil {
		return err
	}
	return alter(ctx, db, by, group, job.Key, "update", stmtUpdate, append(columns[3:], group, job.Key)...)
}

// alter changes one job, and records that.
func alter(ctx context.Context, db *coordd.DB, by []heartbeat.By, group, key, what, stmt string, args ...any) error {
	err := db.Tx(ctx, func(tx coordd.Queries) error {
		slots, err := slotCount(ctx, tx, group)
		if err != nil {
			return err
		}
		altered, err := tx.Exec(ctx, stmt, args...)
		if err != nil {
			return err
		}
		if altered > 0 {
			return journal.Append(ctx, tx, append(audit(what, group, key, by), changed(group, []int{SlotOf(key, slots)}))...)
		}
		var there int
		if err := tx.Get(ctx, []any{&there}, stmtHas, group, key); err != nil || there > 0 && what != "remove" {
			return err
		}
		return ErrNoJob
	})
	if err != nil {
		return fmt.Errorf("%s job %q of group %q: %w", what, key, group, err)
	}
	journal.Ring(ctx, db)
	return nil
}
