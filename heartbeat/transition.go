package heartbeat

import (
	"context"
	"encoding/json"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// Topic is the topic of events about members. Their subject is the member's name; their
// actions are joined, draining, undrained, condemned, left, restarting and died.
const Topic = "member"

const stmtMember = `select name, address, version, labels from coordd_members where id = ?`

// transactor is a *coordd.DB or one of its lanes.
type transactor interface {
	Tx(ctx context.Context, fn func(tx coordd.Queries) error) error
}

// transition changes one member's state by stmt, which says from which states, and records
// that in the same transaction. It says whether it was this call that changed it.
func transition(ctx context.Context, on transactor, id, action, stmt string, args ...any) (changed bool, err error) {
	err = on.Tx(ctx, func(tx coordd.Queries) error {
		rows, err := tx.Exec(ctx, stmt, args...)
		changed = rows == 1
		if err != nil || !changed {
			return err
		}
		return record(ctx, tx, id, action)
	})
	return changed && err == nil, err
}

// record tells of a change to a member. It comes last in its transaction.
func record(ctx context.Context, tx coordd.Queries, id, action string) error {
	e, err := eventOf(ctx, tx, id, action)
	if err != nil {
		return err
	}
	return journal.Append(ctx, tx, e)
}

// eventOf is the event of a change to a member, with what the member last was.
func eventOf(ctx context.Context, tx coordd.Queries, id, action string) (journal.Event, error) {
	var m struct {
		ID      string          `json:"id"`
		Name    string          `json:"name"`
		Address string          `json:"address"`
		Version string          `json:"version"`
		Labels  json.RawMessage `json:"labels"`
	}
	var labels string
	m.ID = id
	if err := tx.Get(ctx, []any{&m.Name, &m.Address, &m.Version, &labels}, stmtMember, id); err != nil {
		return journal.Event{}, err
	}
	m.Labels = json.RawMessage(labels)
	data, err := json.Marshal(m)
	if err != nil {
		return journal.Event{}, err
	}
	return journal.Event{Topic: Topic, Subject: m.Name, Action: action, MemberID: id, Data: string(data)}, nil
}
