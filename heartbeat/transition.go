package heartbeat

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// Topic is the topic of events about members. Their subject is the member's name; their
// actions are joined, draining, undrained, condemned, left, restarting and died.
const Topic = "member"

// stmtMember: 0 rows: somebody has deleted it, as no statement here does before it has ended.
const stmtMember = `select name, address, version, labels from coordd_members where id = ?`

// transactor is a *coordd.DB or one of its lanes.
type transactor interface {
	Tx(ctx context.Context, fn func(tx coordd.Queries) error) error
}

// transition changes one member's state by stmt, which says from which states, and records
// that in the same transaction. It says whether it was this call that changed it. For a row
// that others keep locked it waits no longer than patience.
func transition(ctx context.Context, on transactor, patience time.Duration, id, action, stmt string, args ...any) (changed bool, err error) {
	var patient context.Context // once there is a transaction, and for all that are run again
	cancel := func() {}
	defer func() { cancel() }()
	err = on.Tx(ctx, func(tx coordd.Queries) error {
		if patient == nil {
			patient, cancel = context.WithTimeout(ctx, patience)
		}
		rows, err := tx.Exec(patient, stmt, args...)
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

// eventOf is the event of a change to a member, with what the member last was. Of one that
// somebody has deleted no more than its id is known.
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
	err := tx.Get(ctx, []any{&m.Name, &m.Address, &m.Version, &labels}, stmtMember, id)
	if errors.Is(err, sql.ErrNoRows) {
		m.Name, labels, err = id, "{}", nil
	}
	if err != nil {
		return journal.Event{}, err
	}
	m.Labels = json.RawMessage(labels)
	data, err := json.Marshal(m)
	if err != nil {
		return journal.Event{}, err
	}
	return journal.Event{Topic: Topic, Subject: m.Name, Action: action, MemberID: id, Data: string(data)}, nil
}
