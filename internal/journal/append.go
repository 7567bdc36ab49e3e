package journal

import (
	"context"
	"strings"

	"github.com/coordd/coordd"
)

const (
	stmtBump = `update coordd_meta set value = value + ? where name = 'revision'` // 0 rows: no schema

	// One row follows for each event. One that comes from the outbox keeps its time.
	stmtAppend = `insert into coordd_events (revision, at_us, topic, subject, action, member_id, data) values `
	appendRow  = `(?, coalesce(?, {now}), ?, ?, ?, ?, ?)`
)

// Append records events in the transaction that makes the change. It must be the last
// thing that the transaction does, and the transaction must be coordd's own. Some hundreds
// of events are the most for one call. Once the transaction is committed, [Ring].
func Append(ctx context.Context, tx coordd.Queries, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	n := len(events)
	changed, err := tx.Exec(ctx, stmtBump, n)
	if err != nil {
		return err
	}
	if changed != 1 {
		return errNoRevision
	}
	last, err := Revision(ctx, tx)
	if err != nil {
		return err
	}
	var args []any
	for i, e := range events {
		var at any // null: now
		if !e.At.IsZero() {
			at = e.At.UnixMicro()
		}
		revision := last - int64(n-1-i)
		args = append(args, revision, at, e.Topic, e.Subject, e.Action, e.MemberID, e.Data)
	}
	_, err = tx.Exec(ctx, stmtAppend+appendRow+strings.Repeat(", "+appendRow, n-1), args...)
	return err
}
