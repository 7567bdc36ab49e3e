package lease

import (
	"context"
	"math"
	"time"

	"github.com/coordd/coordd"
)

// Holder is one that holds a lease, alone or with others.
type Holder struct {
	MemberID string
	Name     string // of the member
	Address  string
	Client   string // on whose behalf it holds, if not its own
	Shared   bool
	Token    int64
	Value    string    // that it has published
	Since    time.Time // by the database's clock: for people

	grantID string
}

// Waiter is one that waits for a lease.
type Waiter struct {
	MemberID string
	Name     string // of the member
	Priority int64
	Since    time.Time // by the database's clock: for people
}

// Info is how a lease stands. Holders and waiters that have ended do not show.
type Info struct {
	Name    string
	Token   int64 // the newest
	Holders []Holder
	Waiters []Waiter // in their order
}

// A range is said by two comparisons: MariaDB (10.11) takes `between 'lock/A' and 'lock/a'` for
// equality, as these are equal in the connection's collation, if not in the column's.
const (
	stmtTokens = `select name, token from coordd_leases where name >= ? and name <= ? order by name limit ?`

	stmtHolders = `select l.name, m.id, m.name, m.address, 0, l.token, l.value, l.client, l.since_us, l.grant_id
		from coordd_leases l
		join coordd_heartbeats b on b.member_id = l.holder and b.state in ` + living + `
		join coordd_members m on m.id = l.holder
		where l.name >= ? and l.name <= ?
		union all
		select s.lease, m.id, m.name, m.address, 1, s.token, '', s.client, s.since_us, s.grant_id
		from coordd_shared s
		join coordd_heartbeats b on b.member_id = s.member_id and b.state in ` + living + `
		join coordd_members m on m.id = s.member_id
		where s.lease >= ? and s.lease <= ?
		order by 1, 6`

	stmtWaiters = `select w.lease, m.id, m.name, w.priority, w.since_us
		from coordd_waiters w
		join coordd_heartbeats b on b.member_id = w.member_id and b.state in ` + queued + `
		join coordd_members m on m.id = w.member_id
		where w.lease >= ? and w.lease <= ?
		order by w.lease, w.priority desc, w.ticket`
)

// Inspect tells how one lease stands. One that was never asked for is free, and has no token.
func Inspect(ctx context.Context, db *coordd.DB, name string) (Info, error) {
	all, err := between(ctx, db, name, name, 1)
	if err != nil || len(all) == 0 {
		return Info{Name: name}, err
	}
	return all[0], nil
}

// List tells how all leases of a prefix stand, by name. Prefix ends with a slash.
func List(ctx context.Context, db *coordd.DB, prefix string) ([]Info, error) {
	return Page(ctx, db, prefix, "", math.MaxInt32)
}

// Page is List, of those after a name, and not more than limit of them.
func Page(ctx context.Context, db *coordd.DB, prefix, after string, limit int) ([]Info, error) {
	end := prefix[:len(prefix)-1] + "0" // which comes after the slash, and is no lease
	if after == "" {
		return between(ctx, db, prefix, end, limit)
	}
	all, err := between(ctx, db, prefix+after, end, limit+1)
	if len(all) > 0 && all[0].Name == prefix+after {
		return all[1:], err
	}
	return all[:min(limit, len(all))], err
}

// between reads so many leases by name, from one to another. The three statements are
// three instants: a holder may show up twice, or a moment late; a token is that of the newest.
func between(ctx context.Context, db *coordd.DB, from, to string, most int) ([]Info, error) {
	all, err := coordd.All(ctx, db.Queries, func(i *Info) []any { return []any{&i.Name, &i.Token} }, stmtTokens, from, to, most)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	from, to = all[0].Name, all[len(all)-1].Name
	at := map[string]*Info{}
	for i := range all {
		at[all[i].Name] = &all[i]
	}
	type holder struct {
		lease  string
		h      Holder
		shared int
		since  int64
	}
	holders, err := coordd.All(ctx, db.Queries, func(r *holder) []any {
		return []any{&r.lease, &r.h.MemberID, &r.h.Name, &r.h.Address, &r.shared, &r.h.Token, &r.h.Value, &r.h.Client, &r.since, &r.h.grantID}
	}, stmtHolders, from, to, from, to)
	if err != nil {
		return nil, err
	}
	for _, r := range holders {
		if info := at[r.lease]; info != nil {
			r.h.Shared, r.h.Since = r.shared == 1, time.UnixMicro(r.since).UTC()
			info.Token, info.Holders = max(info.Token, r.h.Token), append(info.Holders, r.h)
		}
	}
	type waiter struct {
		lease string
		w     Waiter
		since int64
	}
	waiters, err := coordd.All(ctx, db.Queries, func(r *waiter) []any {
		return []any{&r.lease, &r.w.MemberID, &r.w.Name, &r.w.Priority, &r.since}
	}, stmtWaiters, from, to)
	if err != nil {
		return nil, err
	}
	for _, r := range waiters {
		if info := at[r.lease]; info != nil {
			r.w.Since = time.UnixMicro(r.since).UTC()
			info.Waiters = append(info.Waiters, r.w)
		}
	}
	return all, nil
}
