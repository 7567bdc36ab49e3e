package heartbeat

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

const (
	// Each names the states that it may come from. 0 rows: the member is in another one.
	stmtDrain = `update coordd_heartbeats set state = 'draining'
		where member_id = ? and state = 'alive'`
	stmtUndrain = `update coordd_heartbeats set state = 'alive'
		where member_id = ? and state = 'draining'`
	stmtCondemn = `update coordd_heartbeats set state = 'condemned'
		where member_id = ? and state in ('alive', 'draining')`

	// What is to be purged is read first, and deleted row by row: a delete that looks for its rows
	// waits on MySQL for those of the living.

	// The times are the database's: they decide how long history is shown, and nothing else.
	stmtEnded = `select member_id from coordd_heartbeats
		where state in ('left', 'dead', 'restarting') and beat_us < {now} - ?
		order by member_id`
	stmtPurgeBeat = `delete from coordd_heartbeats
		where member_id = ? and state in ('left', 'dead', 'restarting')` // 0 rows: another has done it

	// Both rows of a member come in one transaction, and its beats never come back.
	stmtWithoutBeats = `select m.id from coordd_members m left join coordd_heartbeats h on h.member_id = m.id
		where h.member_id is null
		order by m.id`
	stmtPurgeMember = `delete from coordd_members where id = ?` // 0 rows: another has done it
)

// AuditTopic is the topic of events that say who asked for a change. Their subject is the name of what the
// change is about: a member, an election, a lock, a group of jobs. Their actions are drain, undrain and forget;
// resign, transfer and release; define, add, update, pause, resume and remove.
const AuditTopic = "audit"

// By says on whose behalf something is changed. It stands in an event of topic [AuditTopic],
// in the commit of the change.
type By struct {
	Actor  string `json:"actor"`            // a user, or the name of a token
	Remote string `json:"remote,omitempty"` // the address that it came from
	Via    string `json:"via,omitempty"`    // what was asked, as "POST /v1/members/app-7/drain"
	Reason string `json:"reason,omitempty"`
}

// Drain asks a member to hand over what it holds and lead nothing and take no jobs; it goes on beating.
// It fails with [coordd.ErrNone] if no member of that id is alive and not draining.
func Drain(ctx context.Context, db *coordd.DB, id string, by ...By) error {
	return operation{"drain", "draining", stmtDrain}.do(ctx, db, id, by)
}

// Undrain takes Drain back. It fails with [coordd.ErrNone] if no member of that id is
// draining.
func Undrain(ctx context.Context, db *coordd.DB, id string, by ...By) error {
	return operation{"undrain", "undrained", stmtUndrain}.do(ctx, db, id, by)
}

// Forget condemns a member: its beats are refused from now on, so its session is lost, and it
// is declared dead once its right has run out for those who watch. A process that still
// works joins again under a new id. It fails with [coordd.ErrNone] if no member of that id
// is alive or draining.
func Forget(ctx context.Context, db *coordd.DB, id string, by ...By) error {
	return operation{"forget", "condemned", stmtCondemn}.do(ctx, db, id, by)
}

// operation is what may be done to a member from outside.
type operation struct{ name, action, stmt string }

// do changes the member, and records that and who asked for it in the same transaction.
func (o operation) do(ctx context.Context, db *coordd.DB, id string, by []By) error {
	err := db.Tx(ctx, func(tx coordd.Queries) error {
		changed, err := tx.Exec(ctx, o.stmt, id)
		if err != nil {
			return err
		}
		if changed == 0 {
			return coordd.ErrNone
		}
		e, err := eventOf(ctx, tx, id, o.action)
		if err != nil {
			return err
		}
		events := []journal.Event{e}
		for _, b := range by {
			data, err := json.Marshal(b)
			if err != nil {
				return err
			}
			events = append(events, journal.Event{Topic: AuditTopic, Subject: e.Subject, Action: o.name, MemberID: id, Data: string(data)})
		}
		return journal.Append(ctx, tx, events...)
	})
	if err != nil {
		return fmt.Errorf("member %s, %s: %w", id, o.name, err)
	}
	journal.Ring(ctx, db)
	return nil
}

// purgeBatch is how many rows are deleted in one transaction, at the most.
const purgeBatch = 100

// Purge deletes members that have ended for longer than keep, and says how many. A member
// that is not there counts as dead, so this changes nothing but what is shown.
func Purge(ctx context.Context, db *coordd.DB, keep time.Duration) (purged int64, err error) {
	if _, err = purge(ctx, db, stmtPurgeBeat, stmtEnded, keep.Microseconds()); err == nil {
		purged, err = purge(ctx, db, stmtPurgeMember, stmtWithoutBeats)
	}
	if err != nil {
		return purged, fmt.Errorf("purge members: %w", err)
	}
	return purged, nil
}

// purge deletes the rows that a statement lists, in the order of their keys, so that those who
// purge at once do not wait for each other in a circle.
func purge(ctx context.Context, db *coordd.DB, del, list string, args ...any) (purged int64, err error) {
	ids, err := coordd.All(ctx, db.Queries, func(id *string) []any { return []any{id} }, list, args...)
	if err != nil {
		return 0, err
	}
	for batch := range slices.Chunk(ids, purgeBatch) {
		var deleted int64
		err := db.Tx(ctx, func(tx coordd.Queries) error {
			deleted = 0
			for _, id := range batch {
				n, err := tx.Exec(ctx, del, id)
				if err != nil {
					return err
				}
				deleted += n
			}
			return nil
		})
		if err != nil {
			return purged, err
		}
		purged += deleted
	}
	return purged, nil
}
