package assign

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/name"
)

// Owner is who looks after a job.
type Owner struct {
	MemberID string // empty: nobody
	Name     string // of the member
	Address  string
	Epoch    int64
}

// Info is a job, and who looks after it.
type Info struct {
	Spec
	Slot  int
	Owner Owner
}

const (
	infoColumns = `j.job_key, j.payload, j.labels, j.weight, j.paused, j.slot, coalesce(h.member_id, ''), coalesce(m.name, ''), coalesce(m.address, ''), s.epoch`
	infoOwners  = `
		join coordd_slots s on s.grp = j.grp and s.slot = j.slot
		left join coordd_heartbeats h on h.member_id = s.owner and h.state in ('alive', 'draining', 'condemned')
		left join coordd_members m on m.id = h.member_id `

	stmtLookup = `select ` + infoColumns + ` from coordd_jobs j ` + infoOwners + `where j.grp = ? and j.job_key = ?` // 0 rows: there is no such job

	// stmtList takes the page out first. In one piece PostgreSQL, while it has no statistics of jobs
	// that have just been added, reads and sorts all of them for each page.
	stmtList = `select ` + infoColumns + `
		from (select * from coordd_jobs where grp = ? and job_key > ? order by job_key limit ?) j ` + infoOwners + `order by j.job_key`

	stmtOwnedJobs = `select ` + infoColumns + ` from coordd_jobs j ` + infoOwners + `where j.grp = ? and j.job_key > ? and h.member_id = ? order by j.job_key limit ?`

	stmtCounts = `select slot, count(*), sum(case when paused = 0 then weight else 0 end) from coordd_jobs where grp = ? group by slot`
)

// infoRow is an Info as the database has it.
type infoRow struct {
	Info
	labels string
	paused int
}

func (r *infoRow) fields() []any {
	return []any{&r.Key, &r.Payload, &r.labels, &r.Weight, &r.paused, &r.Slot, &r.Owner.MemberID, &r.Owner.Name, &r.Owner.Address, &r.Owner.Epoch}
}

func (r *infoRow) read() (Info, error) {
	r.Paused = r.paused != 0
	if err := json.Unmarshal([]byte(r.labels), &r.Labels); err != nil {
		return Info{}, fmt.Errorf("labels of job %q: %w", r.Key, err)
	}
	return r.Info, nil
}

// Lookup tells of a job and who looks after it, a moment ago. It fails with [ErrNoJob] if
// there is none; one that nobody looks after just now has an empty Owner.
func Lookup(ctx context.Context, db *coordd.DB, group, key string) (Info, error) {
	var r infoRow
	err := db.Get(ctx, r.fields(), stmtLookup, group, key)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoJob
	}
	var info Info
	if err == nil {
		info, err = r.read()
	}
	if err != nil {
		return Info{}, fmt.Errorf("job %q of group %q: %w", key, group, err)
	}
	return info, nil
}

// List lists jobs in the order of their keys, those after a key, limit at most.
func List(ctx context.Context, db *coordd.DB, group, after string, limit int) ([]Info, error) {
	return list(ctx, db, group, stmtList, group, after, limit)
}

// Owned is List of the jobs that one member looks after, by its id.
func Owned(ctx context.Context, db *coordd.DB, group, member, after string, limit int) ([]Info, error) {
	return list(ctx, db, group, stmtOwnedJobs, group, after, member, limit)
}

func list(ctx context.Context, db *coordd.DB, group, stmt string, args ...any) ([]Info, error) {
	found, err := coordd.All(ctx, db.Queries, (*infoRow).fields, stmt, args...)
	if err == nil && len(found) == 0 {
		_, err = readGroup(ctx, db.Queries, group)
	}
	if err != nil {
		return nil, fmt.Errorf("jobs of group %q: %w", group, err)
	}
	jobs := make([]Info, 0, len(found))
	for _, r := range found {
		info, err := r.read()
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, info)
	}
	return jobs, nil
}

// Share is what one member has of a group.
type Share struct {
	MemberID string // empty: what nobody has
	Name     string // of the member
	State    heartbeat.State
	Slots    int
	Jobs     int
	Weight   int64 // of the jobs that are not paused
	Leaving  int   // slots on their way to others
	Coming   int   // slots on their way to it
}

// Shares tells what each has who serves a group, by name, and last what nobody has. Its
// statements are several instants: while slots move they may stand twice, or nowhere.
func Shares(ctx context.Context, db *coordd.DB, group string) ([]Share, error) {
	p, err := read(ctx, db, group)
	if err != nil {
		return nil, fmt.Errorf("group %q: %w", group, err)
	}
	shares := map[string]*Share{"": {}}
	for _, sv := range p.servers {
		shares[sv.id] = &Share{MemberID: sv.id, Name: sv.name, State: sv.state}
	}
	for i, r := range p.slots {
		share := shares[""]
		if r.owned() && shares[r.owner] != nil {
			share = shares[r.owner]
		}
		share.Slots++
		share.Jobs += p.counts[i].jobs
		share.Weight += p.counts[i].weight
		if to := shares[r.target]; r.target != "" && to != nil {
			share.Leaving++
			to.Coming++
		}
	}
	var all []Share
	for _, sv := range p.servers {
		all = append(all, *shares[sv.id])
	}
	slices.SortStableFunc(all, func(a, b Share) int { return cmp.Compare(a.Name, b.Name) })
	if nobody := shares[""]; nobody.Slots > 0 {
		all = append(all, *nobody)
	}
	return all, nil
}

// picture is all that is known of a group.
type picture struct {
	state
	counts []count
}

type count struct {
	slot, jobs int
	weight     int64
}

func read(ctx context.Context, db *coordd.DB, group string) (p picture, err error) {
	if p.group, err = readGroup(ctx, db.Queries, group); err != nil {
		return p, err
	}
	p.group.Options = p.group.Defaults()
	if p.servers, err = readServers(ctx, db.Queries, group); err != nil {
		return p, err
	}
	if p.slots, err = readSlots(ctx, db.Queries, group); err != nil {
		return p, err
	}
	counts, err := coordd.All(ctx, db.Queries, func(c *count) []any { return []any{&c.slot, &c.jobs, &c.weight} }, stmtCounts, group)
	p.counts, p.loads = make([]count, len(p.slots)), make([]float64, len(p.slots))
	for _, c := range counts {
		if c.slot >= 0 && c.slot < len(p.slots) {
			p.counts[c.slot], p.loads[c.slot] = c, float64(c.weight)
		}
	}
	return p, err
}

// Move is a slot that goes from one member to another.
type Move struct {
	Slot, Jobs int
	From, To   string // names of members; empty: nobody
}

// Preview tells what would move, and where to, if some members, by name, were gone and others, each
// of weight 1, came. It knows the strategies and nobody's own planner. What moves takes several
// plans where the group's move cap is below what is to move.
//
// What somebody had who restarts or is condemned is kept for that name, as its leader keeps it, and
// is no move while nobody of that name is there. Preview cannot know since when a member restarts:
// it takes the group's restart grace as not over, unless there is none. It fails with [ErrNoGroup],
// with [coordd.ErrNone] if one of those who are to be gone does not serve the group, and with
// [coordd.ErrInvalid] if one of those who come has no name that a member may have.
func Preview(ctx context.Context, db *coordd.DB, group string, without, with []string) ([]Move, error) {
	p, err := read(ctx, db, group)
	if err != nil {
		return nil, fmt.Errorf("group %q: %w", group, err)
	}
	placer, err := PlacerByName(p.group.Strategy)
	if err != nil {
		return nil, fmt.Errorf("group %q: %w", group, err)
	}
	v, err := p.view(without, with)
	if err != nil {
		return nil, fmt.Errorf("group %q: %w", group, err)
	}
	plan := Sticky(placer).Plan(v)
	var moves []Move
	for i, to := range plan {
		m := Move{Slot: i, Jobs: p.counts[i].jobs, From: p.nameOf(p.slots[i])}
		if to >= 0 {
			m.To = v.Members[to].Name
		}
		waits := to < 0 && v.Reserved[i] != ""
		if owner := v.Owners[i]; owner != to || owner < 0 && m.From != m.To && !waits {
			moves = append(moves, m)
		}
	}
	return moves, nil
}

// nameOf names the owner of a slot.
func (p picture) nameOf(r slotRow) string {
	if r.owned() {
		return r.ownerName
	}
	return ""
}

// view is the group as it would be.
func (p picture) view(without, with []string) (View, error) {
	v := View{Group: p.group.Name, Load: p.loads}
	at := map[string]int{}
	for _, gone := range without {
		if !slices.ContainsFunc(p.servers, func(sv server) bool { return sv.name == gone }) {
			return v, fmt.Errorf("%w: no member %q serves it", coordd.ErrNone, gone)
		}
	}
	for _, sv := range p.servers {
		if slices.Contains(without, sv.name) {
			continue
		}
		weight, _ := WeightOf(sv.labels)
		at[sv.id] = len(v.Members)
		v.Members = append(v.Members, Member{
			ID: sv.id, Name: sv.name, Weight: weight, CPU: sv.cpu,
			Eligible: p.group.eligible(sv),
		})
	}
	for _, come := range with {
		if err := name.Check("member name", come); err != nil {
			return v, fmt.Errorf("%w: %w", coordd.ErrInvalid, err)
		}
		v.Members = append(v.Members, Member{ID: "\uffff" + come, Name: come, Weight: 1, Eligible: true}) // after all that are there, as it will be
	}
	leader := newMemory() // for which each restart has just begun
	v.Owners, v.Reserved = leader.owners(p.without(without), at, &orders{}, time.Time{})
	return v, nil
}

// without is the state in which some members, by name, are dead.
func (p picture) without(names []string) state {
	s := p.state
	dead := map[string]bool{}
	for _, sv := range p.servers {
		dead[sv.id] = slices.Contains(names, sv.name)
	}
	s.slots = slices.Clone(p.slots)
	for i, r := range s.slots {
		if slices.Contains(names, r.ownerName) {
			s.slots[i].ownerState = heartbeat.Dead
		}
		if dead[r.target] {
			s.slots[i].targetState = heartbeat.Dead
		}
	}
	return s
}
