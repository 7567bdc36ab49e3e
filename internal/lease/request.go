package lease

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/journal"
)

// Ask is what somebody asks of those who hold a lease: to give it up.
type Ask struct {
	Name   string
	By     string        // who asks, for people
	Reason string        // why, for people
	To     string        // the id of the member that is to have it next, which must wait for it; empty: whoever is next
	Within time.Duration // a holder that has not obeyed by then is condemned; 0 means 15 s
	Token  int64         // the newest, as it was when this was decided; 0: whatever it is

	// Audit is who asked, for the record: each is an event of topic [heartbeat.AuditTopic] in the
	// commit of the request, and of whatever else becomes of it.
	Audit []heartbeat.By
}

const defaultWithin = 15 * time.Second

const (
	// stmtAsk changes the row also where the same is asked twice. 0 rows: it was granted anew.
	stmtAsk = `update coordd_leases set request = ?, guards = guards + 1 where name = ? and token = ?`

	stmtHighest = `select coalesce(max(priority), 0) from coordd_waiters where lease = ?`

	// stmtPrefer lets a waiter be the next. 0 rows: it does not wait.
	stmtPrefer = `update coordd_waiters set priority = ? where lease = ? and member_id = ?`
)

// Release asks everybody who holds a lease to give it up, and waits until nobody of them holds it
// any more. Those who have not obeyed after a while are condemned: their sessions end with all
// that they hold, which is free when their right has run out. Nothing is ever taken from a
// living session. It fails with [coordd.ErrNone] if nobody holds it; with [ErrNotWaiting] if the
// member that is to have it next does not wait for it; with [coordd.ErrFenced] if it was
// granted since the token that is named; and with [coordd.ErrInvalid] if Within is negative.
func Release(ctx context.Context, db *coordd.DB, ask Ask) error {
	if ask.Within < 0 {
		return fmt.Errorf("ask for %s: %w: Within %v: it must not be negative", called(ask.Name), coordd.ErrInvalid, ask.Within)
	}
	asked, err := put(ctx, db, ask)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", called(ask.Name), err)
	}
	journal.Ring(ctx, db)
	deadline, condemned := time.Now().Add(cmp.Or(ask.Within, defaultWithin)), false
	last := error(nil)
	for pause := firstPause; ; pause = min(2*pause, nearPause) {
		left, err := stillHeld(ctx, db, ask.Name, asked)
		if err == nil && len(left) == 0 {
			return nil
		}
		if err == nil && !condemned && time.Now().After(deadline) {
			if err := condemn(ctx, db, left, ask.Audit); err != nil {
				return fmt.Errorf("ask for %s: %w", called(ask.Name), err)
			}
			condemned = true
		}
		if hopeless(err) {
			return fmt.Errorf("ask for %s: %w; the request stands", called(ask.Name), err)
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if !sleep(ctx, pause) {
			return fmt.Errorf("ask for %s: %w; the request stands", called(ask.Name), ended(ctx.Err(), last))
		}
	}
}

// put writes the request beside the grants that it concerns, with its event.
func put(ctx context.Context, db *coordd.DB, ask Ask) (grants []string, err error) {
	for {
		info, err := Inspect(ctx, db, ask.Name)
		if err != nil {
			return nil, err
		}
		if ask.Token != 0 && ask.Token != info.Token {
			return nil, fmt.Errorf("%w: its token is %d", coordd.ErrFenced, info.Token)
		}
		if len(info.Holders) == 0 {
			return nil, fmt.Errorf("%w: nobody holds it", coordd.ErrNone)
		}
		grants = nil
		for _, h := range info.Holders {
			grants = append(grants, h.grantID)
		}
		done, err := ask.write(ctx, db, info, request{Grants: grants, By: ask.By, Reason: ask.Reason})
		if done || err != nil {
			return grants, err
		}
	}
}

func (ask Ask) write(ctx context.Context, db *coordd.DB, info Info, r request) (done bool, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	err = db.Tx(ctx, func(tx coordd.Queries) error {
		done = false
		changed, err := tx.Exec(ctx, stmtAsk, string(text), info.Name, info.Token)
		if err != nil || changed == 0 {
			return err
		}
		if ask.To != "" {
			if err := ask.prefer(ctx, tx); err != nil {
				return err
			}
		}
		done = true
		e := journal.Event{Topic: kind(ask.Name), Subject: subject(ask.Name), Action: "requested", MemberID: info.Holders[0].MemberID, Data: string(text)}
		audit, err := ask.audit(e)
		if err != nil {
			return err
		}
		return journal.Append(ctx, tx, append(audit, e)...)
	})
	return done, err
}

// audit are the events that say who asked.
func (ask Ask) audit(requested journal.Event) (events []journal.Event, err error) {
	action := "release"
	switch {
	case ask.To != "":
		action = "transfer"
	case requested.Topic == "election":
		action = "resign"
	}
	for _, by := range ask.Audit {
		data, err := json.Marshal(by)
		if err != nil {
			return nil, err
		}
		events = append(events, journal.Event{Topic: heartbeat.AuditTopic, Subject: requested.Subject, Action: action, MemberID: requested.MemberID, Data: string(data)})
	}
	return events, nil
}

// ErrNotWaiting says that the member that is to have a lease next does not wait for it. It is
// [coordd.ErrNone].
var ErrNotWaiting = fmt.Errorf("%w: it does not wait for it", coordd.ErrNone)

// prefer puts the waiter that is to have it next before all others, also before one that was
// preferred earlier.
func (ask Ask) prefer(ctx context.Context, tx coordd.Queries) error {
	var highest int64
	if err := tx.Get(ctx, []any{&highest}, stmtHighest, ask.Name); err != nil {
		return err
	}
	preferred, err := tx.Exec(ctx, stmtPrefer, min(highest, math.MaxInt64-1)+1, ask.Name, ask.To)
	if err == nil && preferred == 0 {
		err = fmt.Errorf("member %s: %w", ask.To, ErrNotWaiting)
	}
	return err
}

// stillHeld is who of those that were asked still holds it.
func stillHeld(ctx context.Context, db *coordd.DB, name string, asked []string) (left []Holder, err error) {
	info, err := Inspect(ctx, db, name)
	for _, h := range info.Holders {
		if slices.Contains(asked, h.grantID) {
			left = append(left, h)
		}
	}
	return left, err
}

func condemn(ctx context.Context, db *coordd.DB, left []Holder, audit []heartbeat.By) (err error) {
	for _, h := range left {
		failed := heartbeat.Forget(ctx, db, h.MemberID, audit...)
		if errors.Is(failed, coordd.ErrNone) {
			failed = nil // it has ended, or somebody has condemned it
		}
		err = errors.Join(err, failed)
	}
	return err
}
