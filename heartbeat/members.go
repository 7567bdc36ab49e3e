package heartbeat

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/coordd/coordd"
)

// State is what the database says of a member.
type State string

// The states. The last three are final: a process that goes on has joined again under
// another id.
const (
	Alive      State = "alive"      // it beats; or it has gone, and nobody was there to see
	Draining   State = "draining"   // alive, and asked to hand over what it holds
	Condemned  State = "condemned"  // its beats are refused; it is dead when its right has run out
	Restarting State = "restarting" // it said goodbye, and that it will be back
	Left       State = "left"       // it said goodbye
	Dead       State = "dead"       // others saw it not beating for its TTL and more
)

// Ended says whether the state is final.
func (s State) Ended() bool { return s == Restarting || s == Left || s == Dead }

// Member is one incarnation of one server process.
type Member struct {
	ID      string // a UUIDv7: members sort by when they joined
	Name    string
	Address string
	Version string
	Labels  map[string]string
	Kind    Kind
	State   State
	Load    *Load // as its latest beat brought it; nil: it tells none
	TTL     time.Duration
	Age     time.Duration // since its latest beat or change of state, by the database's clock: for people
	Joined  time.Time     // by the database's clock: for people
	Held    int           // rights that hang on it: leaderships and locks
	Slots   int           // of groups of jobs that it owns
}

// Overdue says that a member counts as living though its beat is older than its TTL: it
// has most likely gone, and no other has watched it for long enough to be sure.
func (m Member) Overdue() bool { return !m.State.Ended() && m.Age > m.TTL }

// stmtMembers reads everyone. A member is two rows, written in one transaction.
// whereLiving narrows it down.
const stmtMembers = `select m.id, m.name, m.address, m.version, m.labels, m.kind, m.started_us,
		h.state, h.ttl_ms, {now} - h.beat_us, coalesce(h.load_json, ''),
		case when h.state in ('alive', 'draining', 'condemned') then
			(select count(*) from coordd_leases l where l.holder = m.id) + (select count(*) from coordd_shared s where s.member_id = m.id)
		else 0 end,
		case when h.state in ('alive', 'draining', 'condemned') then (select count(*) from coordd_slots s where s.owner = m.id) else 0 end
	from coordd_members m join coordd_heartbeats h on h.member_id = m.id`

const whereLiving = ` where h.state in ('alive', 'draining', 'condemned')`

// Members lists everyone, in the order of their names and of joining; those that have
// ended too. It needs no session.
func Members(ctx context.Context, db *coordd.DB) ([]Member, error) {
	return listMembers(ctx, db, stmtMembers)
}

func listMembers(ctx context.Context, db *coordd.DB, stmt string) ([]Member, error) {
	type row struct {
		m                    Member
		labels, load         string
		started, ttl, silent int64
	}
	rows, err := coordd.All(ctx, db.Queries, func(r *row) []any {
		return []any{&r.m.ID, &r.m.Name, &r.m.Address, &r.m.Version, &r.labels, &r.m.Kind, &r.started, &r.m.State, &r.ttl, &r.silent, &r.load, &r.m.Held, &r.m.Slots}
	}, stmt)
	if err != nil {
		return nil, fmt.Errorf("members: %w", err)
	}
	members := make([]Member, 0, len(rows))
	for _, r := range rows {
		if err := json.Unmarshal([]byte(r.labels), &r.m.Labels); err != nil {
			return nil, fmt.Errorf("members: labels of %s: %w", r.m.ID, err)
		}
		if r.load != "" {
			if err := json.Unmarshal([]byte(r.load), &r.m.Load); err != nil {
				return nil, fmt.Errorf("members: load of %s: %w", r.m.ID, err)
			}
		}
		r.m.TTL = time.Duration(r.ttl) * time.Millisecond
		r.m.Age = max(0, time.Duration(r.silent)*time.Microsecond)
		r.m.Joined = time.UnixMicro(r.started).UTC()
		members = append(members, r.m)
	}
	slices.SortFunc(members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return members, nil
}
