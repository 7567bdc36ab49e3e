package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/coordd/coordd"
)

// A database that was restored, or whose standby took over, may have lost commits that were
// acknowledged, and what was granted in them. So it has a history: coordd_meta holds the
// fingerprint of the one that is accepted, and a number that was drawn for it. Each beat and
// each grant asks in its own WHERE whether that is still so. A new history is recorded by the
// first who notices it, and is in quarantine, its number negative, until every right of the
// old one has run out. Tokens and revisions go on above all that the old one can have given
// out.

// TopicHistory is the topic of events about the database's history. Their subject is its
// fingerprint; their actions are quarantined and trusted.
const TopicHistory = "history"

// InHistory is a condition: the history with this number is the accepted one and still that
// of the database.
const InHistory = `exists (select 1 from coordd_meta where name = 'history' and abs(value) = ? and text = {history})`

// Trusted is InHistory, and that it is not in quarantine.
const Trusted = `exists (select 1 from coordd_meta where name = 'history' and value = ? and text = {history})`

// What HistoryFields reads from HistoryTables goes where [History.Fields] says.
const (
	HistoryFields = `h.value, h.text, {history}, s.value, r.value`
	HistoryTables = `coordd_meta h
		join coordd_meta s on h.name = 'history' and s.name = 'history_since'
		join coordd_meta r on r.name = 'revision'`

	stmtHistory = `select ` + HistoryFields + ` from ` + HistoryTables // 0 rows: no schema

	// stmtAccept accepts the history that a new database has. 0 rows: another has done it.
	stmtAccept = `update coordd_meta set value = ?, text = {history} where name = 'history' and value = 0`

	// stmtRenew records a new history; where another server made somebody think so, it must be
	// another to the server that executes this. 0 rows: somebody has done it, or it is not.
	stmtRenew = `update coordd_meta set value = ?, text = {history}
		where name = 'history' and value = ? and text = ?`
	andElsewhere = ` and text <> {history}`

	// stmtTrust ends a quarantine. 0 rows: another has done it, or the history has changed again.
	stmtTrust = `update coordd_meta set value = -value where name = 'history' and value = ? and text = {history}`

	// stmtFloor is what every token that is known is not above.
	stmtFloor      = `select value, (select coalesce(max(token), 0) from coordd_leases) from coordd_meta where name = 'token_floor'`
	stmtRaiseFloor = `update coordd_meta set value = ? where name = 'token_floor' and value < ?`
	stmtSince      = `update coordd_meta set value = ? where name = 'history_since'`
	stmtRaise      = `update coordd_meta set value = ? where name = 'revision' and value < ?`

	// stmtRaiseMaxTTL undoes what a failover has lost. 0 rows: it has lost nothing of it.
	stmtRaiseMaxTTL = `update coordd_meta set value = ? where name = 'max_ttl' and value < ?`
)

// History is the history of a database, as it was when it was read.
type History struct {
	Since    int64 // the revision with which it began; 0: the first
	Revision int64 // the newest

	value            int64 // its number, negative in quarantine; 0: none was accepted yet
	accepted, actual string
}

// Fields is where the columns of HistoryFields go.
func (h *History) Fields() []any {
	return []any{&h.value, &h.accepted, &h.actual, &h.Since, &h.Revision}
}

// Number is that of the accepted history.
func (h History) Number() int64 { return max(h.value, -h.value) }

// Fingerprint is that of the database as it is.
func (h History) Fingerprint() string { return h.actual }

// Quarantined says that no grant is given yet.
func (h History) Quarantined() bool { return h.value < 0 }

// Intact says that the database is still that of the accepted history.
func (h History) Intact() bool { return h.value == 0 || h.accepted == h.actual }

// Lags says that a reading may be older than one before it, as another node of a cluster
// may have answered. Where it does not, a number that has fallen is a lost history.
func (h History) Lags() bool { return strings.HasPrefix(h.actual, "galera/") }

// Lost says why nothing can be told to somebody who has seen a revision, if it cannot.
func (h History) Lost(after int64) error {
	switch {
	case !h.Intact():
		return fmt.Errorf("%w: its history was %s and is %s", coordd.ErrHistoryLost, h.accepted, h.actual)
	case 0 < after && after < h.Since:
		return fmt.Errorf("%w: its history began anew with revision %d", coordd.ErrHistoryLost, h.Since)
	case h.Revision < after && !h.Lags():
		return fmt.Errorf("%w: the newest revision is %d", coordd.ErrHistoryLost, h.Revision)
	}
	return nil
}

// ReadHistory reads the history.
func ReadHistory(ctx context.Context, q coordd.Queries) (h History, err error) {
	err = q.Get(ctx, h.Fields(), stmtHistory)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNoRevision
	}
	return h, err
}

// EnterHistory returns the history for somebody who knows none yet. It accepts that of a new
// database, and records that of one that has changed while nobody was there.
func EnterHistory(ctx context.Context, db *coordd.DB) (h History, renewed bool, err error) {
	h, err = ReadHistory(ctx, db.Queries)
	switch {
	case err != nil:
		return h, false, err
	case h.value == 0:
		_, err = db.Exec(ctx, stmtAccept, draw())
	case !h.Intact():
		renewed, err = Renew(ctx, db, h, 0, 0)
	default:
		return h, false, nil
	}
	if err != nil {
		return h, false, err
	}
	h, err = ReadHistory(ctx, db.Queries)
	return h, renewed, err
}

// draw is a number for a history, that none had before.
func draw() int64 { return 1 + rand.Int64N(1<<53-1) }

// step is by how much tokens and revisions are raised at least; more than are given out in a
// second.
const step = 1 << 22

// epoch is where the seconds begin that floors are counted by.
var epoch = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

// Renew records that the history which was read has ended and another has begun, in
// quarantine, and says whether it was this call that did; seen is the newest revision that
// the caller has ever seen, and longest the longest TTL that it knows to be allowed, as
// max_ttl may have been raised in a commit that was lost. It is the one place where a wall
// clock has a say: tokens and revisions go on from (seconds since 2025) * 2^22, which is
// above all that can have been given out and below 2^53 until 2093, and anyway from 2^22
// above what is known.
func Renew(ctx context.Context, db *coordd.DB, read History, seen int64, longest time.Duration) (renewed bool, err error) {
	stmt := stmtRenew
	if !read.Intact() {
		stmt += andElsewhere
	}
	err = db.Tx(ctx, func(tx coordd.Queries) error {
		renewed = false
		changed, err := tx.Exec(ctx, stmt, -draw(), read.value, read.accepted)
		if err != nil || changed == 0 {
			return err
		}
		var floor, highest int64
		if err := tx.Get(ctx, []any{&floor, &highest}, stmtFloor); err != nil {
			return err
		}
		now, err := ReadHistory(ctx, tx)
		if err != nil {
			return err
		}
		floor = max(floor+step, highest+step, now.Revision+step, seen+step, int64(time.Since(epoch)/time.Second)*step)
		if _, err := tx.Exec(ctx, stmtRaiseFloor, floor, floor); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, stmtSince, floor); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, stmtRaiseMaxTTL, longest.Milliseconds(), longest.Milliseconds()); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, stmtRaise, floor, floor); err != nil {
			return err
		}
		renewed = true
		return Append(ctx, tx, historyEvent(now.actual, "quarantined", read.accepted))
	})
	if err != nil {
		return false, fmt.Errorf("record the database's new history: %w", err)
	}
	return renewed, nil
}

// Trust ends the quarantine of a history, and says whether it was this call that did.
func Trust(ctx context.Context, db *coordd.DB, seen History) (trusted bool, err error) {
	err = db.Tx(ctx, func(tx coordd.Queries) error {
		changed, err := tx.Exec(ctx, stmtTrust, -seen.Number())
		trusted = changed == 1
		if err != nil || !trusted {
			return err
		}
		return Append(ctx, tx, historyEvent(seen.accepted, "trusted", seen.accepted))
	})
	if err != nil {
		return false, fmt.Errorf("end the quarantine of the database's history: %w", err)
	}
	return trusted, nil
}

func historyEvent(fingerprint, action, before string) Event {
	data, err := json.Marshal(map[string]string{"fingerprint": fingerprint, "before": before})
	if err != nil {
		panic(err) // a map of strings has nothing that JSON cannot say
	}
	return Event{Topic: TopicHistory, Subject: fingerprint, Action: action, Data: string(data)}
}
