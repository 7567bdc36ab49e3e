package heartbeat

import (
	"context"
	"fmt"
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

	// The times are the database's: they decide how long history is shown, and nothing else.
	stmtPurgeBeats = `delete from coordd_heartbeats
		where state in ('left', 'dead', 'restarting') and beat_us < {now} - ?`
	stmtPurgeMembers = `delete from coordd_members
		where not exists (select 1 from coordd_heartbeats h where h.member_id = coordd_members.id)`
)

// Drain asks a member to hand over what it holds and take nothing new; it goes on beating.
// It fails with [coordd.ErrNone] if no member of that id is alive and not draining.
func Drain(ctx context.Context, db *coordd.DB, id string) error {
	return operate(ctx, db, id, "draining", stmtDrain)
}

// Undrain takes Drain back. It fails with [coordd.ErrNone] if no member of that id is
// draining.
func Undrain(ctx context.Context, db *coordd.DB, id string) error {
	return operate(ctx, db, id, "undrained", stmtUndrain)
}

// Forget condemns a member: its beats are refused from now on, so its session is lost, and it
// is declared dead once its right has run out for those who watch. A process that still
// works joins again under a new id. It fails with [coordd.ErrNone] if no member of that id
// is alive or draining.
func Forget(ctx context.Context, db *coordd.DB, id string) error {
	return operate(ctx, db, id, "condemned", stmtCondemn)
}

func operate(ctx context.Context, db *coordd.DB, id, action, stmt string) error {
	changed, err := transition(ctx, db, id, action, stmt, id)
	if err == nil && !changed {
		err = coordd.ErrNone
	}
	if changed {
		journal.Ring(ctx, db)
	}
	if err != nil {
		return fmt.Errorf("member %s, %s: %w", id, action, err)
	}
	return nil
}

// Purge deletes members that have ended for longer than keep, and says how many. A member
// that is not there counts as dead, so this changes nothing but what is shown.
func Purge(ctx context.Context, db *coordd.DB, keep time.Duration) (purged int64, err error) {
	err = db.Tx(ctx, func(tx coordd.Queries) error {
		if _, err := tx.Exec(ctx, stmtPurgeBeats, keep.Microseconds()); err != nil {
			return err
		}
		purged, err = tx.Exec(ctx, stmtPurgeMembers)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("purge members: %w", err)
	}
	return purged, nil
}
