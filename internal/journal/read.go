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
	Events []Event
	Next   int64 // read on after this revision: nothing is left out up to here
	Newest int64 // the newest revision when the page was read
}

// stmtRead reads events, the newest revision and how far the log is compacted in one
// snapshot. Read one after the other, a compaction between them would go unseen. One row
// without an event: there is none. 0 rows: no schema.
const stmtRead = `select r.value, c.value, coalesce(e.revision, 0), coalesce(e.at_us, 0), coalesce(e.topic, ''),
		coalesce(e.subject, ''), coalesce(e.action, ''), coalesce(e.member_id, ''), coalesce(e.data, '')
	from coordd_meta r
	join coordd_meta c on c.name = 'compacted'
	left join (
		select revision, at_us, topic, subject, action, member_id, data from coordd_events
		where revision > ? {topics} order by revision limit ?
	) e on 1 = 1
	where r.name = 'revision'
	order by e.revision`

// Read returns the events after a revision in their order, limit at most, of the given
// topics or of all. It fails with [ErrCompacted] if events after that revision, of
// whichever topic, have been deleted, and with [ErrHistoryLost] if there is no such
// revision yet.
func Read(ctx context.Context, q coordd.Queries, after int64, limit int, topics ...string) (Page, error) {
	type row struct {
		newest, compacted, at int64
		e                     Event
	}
	stmt, args := ofTopics(stmtRead, topics)
	args = append(append([]any{after}, args...), limit)
	rows, err := coordd.All(ctx, q, func(r *row) []any {
		return []any{&r.newest, &r.compacted, &r.e.Revision, &r.at, &r.e.Topic, &r.e.Subject, &r.e.Action, &r.e.MemberID, &r.e.Data}
	}, stmt, args...)
	if err != nil {
		return Page{}, err
	}
	if len(rows) == 0 {
		return Page{}, errNoRevision
	}
	page := Page{Newest: rows[0].newest, Next: rows[0].newest}
	switch compacted := rows[0].compacted; {
	case page.Newest < after:
		return page, fmt.Errorf("%w: the newest revision is %d", ErrHistoryLost, page.Newest)
	case compacted > after:
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
