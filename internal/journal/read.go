package journal

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coordd/coordd"
)

// Page is a piece of the log.
type Page struct {
	History
	Events    []Event
	Next      int64 // read on after this revision: nothing is left out up to here
	Compacted int64 // the newest revision whose event has been deleted
}

// stmtRead reads events, the newest revision and how far the log is compacted in one
// snapshot. Read one after the other, a compaction between them would go unseen. One row
// without an event: there is none. 0 rows: no schema.
const stmtRead = `select ` + HistoryFields + `, c.value, coalesce(e.revision, 0), coalesce(e.at_us, 0), coalesce(e.topic, ''),
		coalesce(e.subject, ''), coalesce(e.action, ''), coalesce(e.member_id, ''), coalesce(e.data, '')
	from ` + HistoryTables + `
	join coordd_meta c on c.name = 'compacted'
	left join (
		select revision, at_us, topic, subject, action, member_id, data from coordd_events
		where revision > ? {topics} order by revision limit ?
	) e on 1 = 1
	order by e.revision`

// Read returns the events after a revision in their order, limit at most, of the given
// topics or of all. It fails with [ErrCompacted] if events after that revision, of
// whichever topic, have been deleted, and with [coordd.ErrHistoryLost] if that revision is
// not of this history.
func Read(ctx context.Context, q coordd.Queries, after int64, limit int, topics ...string) (Page, error) {
	type row struct {
		h             History
		compacted, at int64
		e             Event
	}
	stmt, args := ofTopics(stmtRead, topics)
	args = append(append([]any{after}, args...), limit)
	rows, err := coordd.All(ctx, q, func(r *row) []any {
		return append(r.h.Fields(), &r.compacted, &r.e.Revision, &r.at, &r.e.Topic, &r.e.Subject, &r.e.Action, &r.e.MemberID, &r.e.Data)
	}, stmt, args...)
	if err != nil {
		return Page{}, err
	}
	if len(rows) == 0 {
		return Page{}, errNoRevision
	}
	h, compacted := rows[0].h, rows[0].compacted
	page := Page{History: h, Next: max(h.Revision, after), Compacted: compacted}
	if err := h.Lost(after); err != nil {
		return page, err
	}
	if compacted > after {
		return page, fmt.Errorf("%w: they are kept from revision %d on", ErrCompacted, compacted+1)
	}
	for _, r := range rows {
		if r.e.Revision == 0 {
			break
		}
		r.e.At = time.UnixMicro(r.at).UTC()
		page.Events = append(page.Events, r.e)
	}
	if n := len(page.Events); n == limit {
		page.Next = page.Events[n-1].Revision
	}
	return page, nil
}

// ofTopics narrows a statement down to topics, if there are any.
func ofTopics(stmt string, topics []string) (string, []any) {
	var where string
	var args []any
	if len(topics) > 0 {
		where = "and topic in (?" + strings.Repeat(", ?", len(topics)-1) + ")"
	}
	for _, t := range topics {
		args = append(args, t)
	}
	return strings.Replace(stmt, "{topics}", where, 1), args
}
