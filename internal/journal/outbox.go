package journal

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/coordd/coordd"
)

const (
	stmtPost = `insert into coordd_outbox (id, at_us, topic, subject, action, member_id, data)
		values (?, {now}, ?, ?, ?, ?, ?)`

	stmtPosted = `select id, at_us, topic, subject, action, member_id, data from coordd_outbox
		order by id limit ?`

	stmtTake = `delete from coordd_outbox where id = ?` // 0 rows: another has moved it
)

// Batch is how many events Drain moves at the most. Each is a round trip, and what moves them
// should not be open for much longer than any other transaction.
const Batch = 100

// Outbox records events in a caller's own transaction, on a Queries that [coordd.DB.On]
// made of it. It writes rows of its own and locks nothing that anybody waits for, however
// long the transaction stays open (SQLite has one writer, so there everybody waits for it
// anyway).
//
// The events have no revision until somebody drains them. Those of one process come into
// the log in the order of these calls, if they are committed in that order; others in no
// particular one.
func Outbox(ctx context.Context, q coordd.Queries, events ...Event) error {
	for _, e := range events {
		id, err := uuid.NewV7() // later ids of one process are greater
		if err != nil {
			return err
		}
		if _, err := q.Exec(ctx, stmtPost, id.String(), e.Topic, e.Subject, e.Action, e.MemberID, e.Data); err != nil {
			return err
		}
	}
	return nil
}

// Drain moves the oldest committed events of the outbox into the log, a [Batch] at most, in
// one transaction, and says how many: call it again until that is 0, which says that there
// are none or that others are moving them. Any number may drain at once, and each event is
// moved once. After an error, [coordd.ErrUnknownOutcome] too, what was not moved is still
// there for the next call. [Ring] if it has moved something.
func Drain(ctx context.Context, db *coordd.DB) (moved int, err error) {
	type row struct {
		id string
		at int64
		e  Event
	}
	// An empty outbox costs no transaction.
	posted, err := coordd.All(ctx, db.Queries, func(r *row) []any {
		return []any{&r.id, &r.at, &r.e.Topic, &r.e.Subject, &r.e.Action, &r.e.MemberID, &r.e.Data}
	}, stmtPosted, Batch)
	if err != nil || len(posted) == 0 {
		return 0, err
	}
	err = db.Tx(ctx, func(tx coordd.Queries) error {
		var taken []Event
		for _, r := range posted {
			changed, err := tx.Exec(ctx, stmtTake, r.id)
			if err != nil {
				return err
			}
			if changed == 0 {
				break // who has moved this one has most likely moved the rest
			}
			r.e.At = time.UnixMicro(r.at)
			taken = append(taken, r.e)
		}
		moved = len(taken)
		return Append(ctx, tx, taken...)
	})
	if err != nil {
		return 0, err
	}
	return moved, nil
}
