package assign

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/journal"
	"github.com/coordd/coordd/internal/name"
)

// ErrNoGroup and ErrNoJob are [coordd.ErrNone], and say of what.
var (
	ErrNoGroup = fmt.Errorf("%w: there is no such group", coordd.ErrNone)
	ErrNoJob   = fmt.Errorf("%w: there is no such job", coordd.ErrNone)
)

// Group says how the jobs of one group are shared out. Only Name is needed.
type Group struct {
	Name string

	// Slots is how many slots the group has, and stays as it is once the group is there: 0 means
	// 4096. Aim at 40 for each server or more.
	Slots int

	// Strategy is where a slot without an owner goes, one of [PlacerByName]; empty means
	// consistent-hash.
	Strategy string

	Options
}

// Options are what may be changed of a group at any time.
type Options struct {
	// Selector is what a member's labels must say for it to be given slots; nil: nothing.
	Selector map[string]string `json:"selector,omitempty"`

	// MoveCap is the share of the slots that may be on their way at once, in percent; 0 means
	// 10. What has lost its owner is given another at once, whatever this says.
	MoveCap int `json:"move_cap,omitempty"`

	// Gather is how long members that have come are gathered before slots are moved to them, so
	// that several that come together cost one move; 0 means 3 s, below 0 that they are not.
	Gather time.Duration `json:"gather,omitempty"`

	// RestartGrace is how long the slots of a member that restarts stay reserved for its name, and anew where
	// the leader changes meanwhile; 0 means 30 s, below 0 that they are not.
	RestartGrace time.Duration `json:"restart_grace,omitempty"`

	// Obey is how long a member may take to carry a plan out before it is condemned: its session
	// ends, and its slots go to others; 0 means a minute. It must be longer than two beats, and than the
	// functions of jobs take to stop.
	Obey time.Duration `json:"obey,omitempty"`
}

// Defaults are the options, and what is meant where they are zero.
func (o Options) Defaults() Options {
	if o.MoveCap == 0 {
		o.MoveCap = 10
	}
	if o.Gather == 0 {
		o.Gather = 3 * time.Second
	}
	if o.RestartGrace == 0 {
		o.RestartGrace = 30 * time.Second
	}
	if o.Obey == 0 {
		o.Obey = time.Minute
	}
	return o
}

func (g Group) withDefaults() Group {
	if g.Slots == 0 {
		g.Slots = DefaultSlots
	}
	if g.Strategy == "" {
		g.Strategy = DefaultStrategy
	}
	return g
}

// DefaultSlots is how many slots a group has for which nobody says a number.
const DefaultSlots = 4096

const (
	maxSlots   = 65536
	maxGroup   = 180 // bytes of a group's name: its election's has a prefix
	rowsAtOnce = 500 // of an insert
)

// check reads a Group with its defaults filled.
func (g Group) check() error {
	o := g.Defaults()
	switch {
	case g.Slots < 1 || g.Slots > maxSlots:
		return fmt.Errorf("%w: %d slots: it must be between 1 and %d", coordd.ErrInvalid, g.Slots, maxSlots)
	case o.MoveCap < 1 || o.MoveCap > 100:
		return fmt.Errorf("%w: a move cap of %d %%: it must be between 1 and 100", coordd.ErrInvalid, o.MoveCap)
	case o.Obey < time.Second:
		return fmt.Errorf("%w: obey %v: it must not be below 1s", coordd.ErrInvalid, o.Obey)
	}
	if _, err := PlacerByName(g.Strategy); err != nil {
		return fmt.Errorf("%w: %w", coordd.ErrInvalid, err)
	}
	for k, v := range g.Selector {
		if err := errors.Join(name.Check("label", k), name.CheckOptional("value of label "+k, v)); err != nil {
			return fmt.Errorf("%w: selector: %w", coordd.ErrInvalid, err)
		}
	}
	return nil
}

func checkGroup(s string) error {
	err := name.Check("group name", s)
	if err == nil && len(s) > maxGroup {
		err = fmt.Errorf("group name %q: it has %d bytes, and %d are the most", s, len(s), maxGroup)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", coordd.ErrInvalid, err)
	}
	return nil
}

const (
	stmtGroup  = `select name, slots, strategy, options from coordd_groups where name = ?` // 0 rows: there is none
	stmtGroups = `select name, slots, strategy, options from coordd_groups order by name`

	stmtNewGroup = `insert into coordd_groups (name, slots, strategy, options, plan_version, created_us)
		values (?, ?, ?, ?, 0, {now}) {or keep plan_version}` // 0 rows: it is there
	stmtNewSlots = `insert into coordd_slots (grp, slot, epoch, version, guards) values `
	newSlot      = `(?, ?, ?, 0, 0)`
	stmtRevision = `select value from coordd_meta where name = 'revision'`

	// stmtOptions changes the row also where it says the same. 0 rows: there is none.
	stmtOptions = `update coordd_groups set strategy = ?, options = ?, plan_version = plan_version + 1 where name = ?`

	// stmtServed counts those too who serve it no more and have work that has not returned.
	stmtServed = `select count(*) from coordd_heartbeats h where h.state in ('alive', 'draining', 'condemned') and (
		exists (select 1 from coordd_group_members g where g.grp = ? and g.member_id = h.member_id)
		or exists (select 1 from coordd_slots s where s.grp = ? and s.owner = h.member_id))`

	stmtDropSlots   = `delete from coordd_slots where grp = ?`
	stmtDropJobs    = `delete from coordd_jobs where grp = ?`
	stmtDropMembers = `delete from coordd_group_members where grp = ?`
	stmtDropGroup   = `delete from coordd_groups where name = ?` // 0 rows: there is none
)

// Define makes a group, or, if it is there, gives it this strategy and these options. Its number
// of slots cannot be changed: another one than it has fails with [coordd.ErrInvalid]; 0 does not.
// By is who asked for it, for the record.
func Define(ctx context.Context, db *coordd.DB, g Group, by ...heartbeat.By) error {
	slots := g.Slots
	g = g.withDefaults()
	if err := checkGroup(g.Name); err != nil {
		return err
	}
	if err := g.check(); err != nil {
		return fmt.Errorf("group %q: %w", g.Name, err)
	}
	options, err := json.Marshal(g.Options)
	if err != nil {
		return fmt.Errorf("group %q: %w", g.Name, err)
	}
	err = db.Tx(ctx, func(tx coordd.Queries) error {
		made, err := tx.Exec(ctx, stmtNewGroup, g.Name, g.Slots, g.Strategy, string(options))
		if err != nil {
			return err
		}
		if made == 1 {
			// What a transaction has added that was open while the group was dropped is in slots of that one.
			if _, err := tx.Exec(ctx, stmtDropJobs, g.Name); err != nil {
				return err
			}
			err = g.makeSlots(ctx, tx)
		} else {
			err = g.change(ctx, tx, slots, string(options))
		}
		if err != nil {
			return err
		}
		return journal.Append(ctx, tx, audit("define", g.Name, "", by)...)
	})
	if err != nil {
		return fmt.Errorf("group %q: %w", g.Name, err)
	}
	if len(by) > 0 {
		journal.Ring(ctx, db)
	}
	return nil
}

// change gives a group that is there its strategy and options; slots is the number that was asked for.
func (g Group) change(ctx context.Context, tx coordd.Queries, slots int, options string) error {
	if _, err := tx.Exec(ctx, stmtOptions, g.Strategy, options, g.Name); err != nil {
		return err
	}
	there, err := readGroup(ctx, tx, g.Name)
	if err == nil && slots != 0 && there.Slots != slots {
		err = fmt.Errorf("%w: it has %d slots and cannot get %d, as its jobs are in them; make another group, or leave the number as it is", coordd.ErrInvalid, there.Slots, slots)
	}
	return err
}

// audit are the events that say who asked for a change of a group, or of a job of it.
func audit(action, group, job string, by []heartbeat.By) (events []journal.Event) {
	for _, b := range by {
		data, _ := json.Marshal(struct {
			heartbeat.By
			Job string `json:"job,omitempty"`
		}{b, job}) // strings have no way to fail
		events = append(events, journal.Event{Topic: heartbeat.AuditTopic, Subject: group, Action: action, Data: string(data)})
	}
	return events
}

// makeSlots makes the slots. Their epochs begin where the revision is, which never falls, so a group
// that is dropped and made again goes on above what it had.
func (g Group) makeSlots(ctx context.Context, tx coordd.Queries) error {
	var revision int64
	if err := tx.Get(ctx, []any{&revision}, stmtRevision); err != nil {
		return err
	}
	for first := 0; first < g.Slots; first += rowsAtOnce {
		n := min(rowsAtOnce, g.Slots-first)
		var args []any
		for slot := first; slot < first+n; slot++ {
			args = append(args, g.Name, slot, revision)
		}
		if _, err := tx.Exec(ctx, stmtNewSlots+rows(newSlot, n), args...); err != nil {
			return err
		}
	}
	return nil
}

// rows repeats one row of a statement, or one element of a list.
func rows(row string, n int) string { return row + strings.Repeat(", "+row, n-1) }

// Find tells of a group, or fails with [ErrNoGroup].
func Find(ctx context.Context, db *coordd.DB, group string) (Group, error) {
	g, err := readGroup(ctx, db.Queries, group)
	if err != nil {
		return Group{}, fmt.Errorf("group %q: %w", group, err)
	}
	return g, nil
}

func readGroup(ctx context.Context, q coordd.Queries, group string) (Group, error) {
	var g groupRow
	err := q.Get(ctx, g.fields(), stmtGroup, group)
	if errors.Is(err, sql.ErrNoRows) {
		return Group{}, ErrNoGroup
	}
	if err != nil {
		return Group{}, err
	}
	return g.read()
}

// groupRow is a Group as the database has it.
type groupRow struct {
	Group
	options string
}

func (g *groupRow) fields() []any { return []any{&g.Name, &g.Slots, &g.Strategy, &g.options} }

func (g *groupRow) read() (Group, error) {
	if err := json.Unmarshal([]byte(g.options), &g.Options); err != nil {
		return Group{}, fmt.Errorf("group %q: its options: %w", g.Name, err)
	}
	return g.Group, nil
}

// Groups lists all groups by name.
func Groups(ctx context.Context, db *coordd.DB) ([]Group, error) {
	found, err := coordd.All(ctx, db.Queries, (*groupRow).fields, stmtGroups)
	if err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	groups := make([]Group, 0, len(found))
	for _, row := range found {
		g, err := row.read()
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// Drop removes a group with all of its jobs. It fails with [ErrNoGroup] if there is none, and with
// [coordd.ErrHeld] while members that live serve it: end that first. Jobs that a transaction adds which is open
// meanwhile are removed when the group is made anew; where that comes before its commit, they may be in no slot of
// it: have none open.
func Drop(ctx context.Context, db *coordd.DB, group string) error {
	err := db.Tx(ctx, func(tx coordd.Queries) error {
		dropped, err := tx.Exec(ctx, stmtDropGroup, group)
		if err == nil && dropped == 0 {
			err = ErrNoGroup
		}
		var served int
		if err == nil {
			err = tx.Get(ctx, []any{&served}, stmtServed, group, group)
		}
		if served > 0 {
			err = fmt.Errorf("%w by %d members that serve it", coordd.ErrHeld, served)
		}
		for _, stmt := range []string{stmtDropMembers, stmtDropSlots, stmtDropJobs} {
			if err == nil {
				_, err = tx.Exec(ctx, stmt, group)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("group %q: %w", group, err)
	}
	return nil
}
