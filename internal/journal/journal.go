// Package journal writes the change log: what has changed, numbered in the order of
// commits.
//
// A revision is taken from one counter row that a changing transaction bumps as the last
// thing it does. The row stays locked until that transaction ends, so whoever has read
// revision r will never see an event appear at or below r. (Sequences and auto-increment
// do not have that property: a lower number may be committed later.) For the same reason
// nothing that runs inside a caller's own transaction may touch that row, as it would keep
// it locked for as long as the caller likes; such events go to an outbox first.
package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/coordd/coordd"
)

// Event is one change.
type Event struct {
	Revision int64
	At       time.Time // by the database's clock: for people
	Topic    string    // what kind of thing has changed: "member"
	Subject  string    // its name
	Action   string    // what has happened to it: "joined"
	MemberID string    // of the member that it happened to, or that did it; may be empty
	Data     string    // JSON: the thing after the change, or as it last was
}

const (
	stmtBump     = `update coordd_meta set value = value + ? where name = 'revision'` // 0 rows: no schema
	stmtRevision = `select value from coordd_meta where name = 'revision'`
	stmtAppend   = `insert into coordd_events (revision, at_us, topic, subject, action, member_id, data)
		values (?, {now}, ?, ?, ?, ?, ?)`
)

// Append records events in the transaction that makes the change. It must be the last
// thing that the transaction does, and the transaction must be coordd's own.
func Append(ctx context.Context, tx coordd.Queries, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	n := int64(len(events))
	changed, err := tx.Exec(ctx, stmtBump, n)
	if err != nil {
		return err
	}
	if changed != 1 {
		return fmt.Errorf("%w: coordd_meta has no revision", coordd.ErrSchema)
	}
	last, err := Revision(ctx, tx)
	if err != nil {
		return err
	}
	for i, e := range events {
		revision := last - n + 1 + int64(i)
		if _, err := tx.Exec(ctx, stmtAppend, revision, e.Topic, e.Subject, e.Action, e.MemberID, e.Data); err != nil {
			return err
		}
	}
	return nil
}

// Revision is the newest revision.
func Revision(ctx context.Context, q coordd.Queries) (revision int64, err error) {
	err = q.Get(ctx, []any{&revision}, stmtRevision)
	return revision, err
}
