package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coordd/coordd"
)

const (
	// stmtIdle reads rows that nobody has used for long, by the database's clock, which decides
	// nothing but what is looked at.
	stmtIdle = `select l.name, l.token, l.since_us from coordd_leases l
		where l.since_us <= {now} - ?
		and not exists (select 1 from coordd_heartbeats b where b.member_id = l.holder and b.state in ` + living + `)
		and not exists (select 1 from coordd_shared s where s.lease = l.name)
		and not exists (select 1 from coordd_waiters w where w.lease = l.name)
		order by l.since_us limit ?`

	stmtRaiseFloor = `update coordd_meta set value = ? where name = 'token_floor' and value < ?` // 0 rows: it is as high

	stmtForget     = `delete from coordd_leases where name = ? and token = ? and since_us = ?` // 0 rows: it was granted, or locked, again
	stmtIdleQueues = `select q.lease, q.next_ticket from coordd_queues q
		where not exists (select 1 from coordd_leases l where l.name = q.lease)
		and not exists (select 1 from coordd_waiters w where w.lease = q.lease) limit ?`
	stmtForgetQueue = `delete from coordd_queues where lease = ? and next_ticket = ?` // 0 rows: somebody waits again

	// These are what purged members have left behind. 0 rows: nothing.
	stmtLeftShared = `select s.grant_id from coordd_shared s
		where not exists (select 1 from coordd_heartbeats b where b.member_id = s.member_id)`
	stmtLeftWaiters = `select w.id from coordd_waiters w
		where not exists (select 1 from coordd_heartbeats b where b.member_id = w.member_id)`
)

// idle is how many rows Tidy removes at once.
const idle = 100

// Tidy removes the rows of leases that nobody has held or wanted since keep ago, a
// hundred at most, with what members have left behind that are purged, and says how many: call
// it again until that is 0. Before that it raises the floor of all tokens above theirs, so a
// lease that comes back goes on above what it had. A row that is granted meanwhile stays, as
// its token has moved.
func Tidy(ctx context.Context, db *coordd.DB, keep time.Duration) (removed int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("tidy leases: %w", err)
		}
	}()
	type row struct {
		name         string
		token, since int64
	}
	rows, err := coordd.All(ctx, db.Queries, func(r *row) []any { return []any{&r.name, &r.token, &r.since} }, stmtIdle, keep.Microseconds(), idle)
	if err != nil {
		return 0, err
	}
	var highest int64
	for _, r := range rows {
		highest = max(highest, r.token)
	}
	if _, err := db.Exec(ctx, stmtRaiseFloor, highest, highest); err != nil {
		return 0, err
	}
	for _, r := range rows {
		n, err := db.Exec(ctx, stmtForget, r.name, r.token, r.since)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	err = errors.Join(
		deleteEach(ctx, db.Queries, stmtLeftShared, stmtDisplace),
		deleteEach(ctx, db.Queries, stmtLeftWaiters, stmtLeaveQueue))
	if err != nil {
		return removed, err
	}
	queues, err := coordd.All(ctx, db.Queries, func(r *row) []any { return []any{&r.name, &r.token} }, stmtIdleQueues, idle)
	for _, q := range queues {
		if _, err := db.Exec(ctx, stmtForgetQueue, q.name, q.token); err != nil {
			return removed, err
		}
	}
	return removed, err
}
