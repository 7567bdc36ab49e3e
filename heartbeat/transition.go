package heartbeat

import (
	"context"
	"encoding/json"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// Topic is the topic of events about members. Their subject is the member's name; their
// actions are joined, left and died.
const Topic = "member"

const stmtMember = `select name, address, version, labels from coordd_members where id = ?`

// transactor is a *coordd.DB or one of its lanes.
type transactor interface {
	Tx(ctx context.Context, fn func(tx coordd.Queries) error) error
}

// end makes one member end by stmt, which changes its row if it may, and records that in
// the same transaction. It says whether it was this call that ended it.
func end(ctx context.Context, on transactor, id, action, stmt string, args ...any) (ended bool, err error) {
	err = on.Tx(ctx, func(tx coordd.Queries) error {
		changed, err := tx.Exec(ctx, stmt, args...)
		ended = changed == 1
		if err != nil || !ended {
			return err
		}
		return record(ctx, tx, id, action)
	})
	return ended && err == nil, err
}

// record tells of a change to a member, with what the member last was. It comes last in its
// transaction.
func record(ctx context.Context, tx coordd.Queries, id, action string) error {
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
		return err
	}
	m.Labels = json.RawMessage(labels)
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return journal.Append(ctx, tx, journal.Event{Topic: Topic, Subject: m.Name, Action: action, MemberID: id, Data: string(data)})
}
