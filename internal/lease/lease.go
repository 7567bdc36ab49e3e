// Package lease is what elections and locks are made of: a named right that at most one holds,
// or some share, with a token that grows with each grant, and a queue of those who wait.
//
// A right is a row that names its holder's session, and counts only while that session lives;
// renewing the session renews everything. It is given by one compare-and-set on the row's
// token, so whatever was read before it may be old. Each grant has an id that is never used
// twice. Where the reply to a grant is lost, it is superseded: the token that it expected is
// moved on, so that it can do nothing any more if it has not done it yet; what is read after
// that is final.
//
// Nobody but the holder frees what a living session holds. Others ask (a request on the row),
// and condemn the whole session where it does not obey.
//
// Those who wait hold a ticket. Only the first in line that lives tries; the next one may when
// the right has lain free for longer than the first one's pauses, as it may be frozen and not
// yet dead.
//
// What it promises holds while committed writes survive, reads go to the primary and local
// clock rates differ by at most 1 %; see docs/design.md. What it costs: a right that nobody
// contends for is two statements to take and give back where its token is remembered, three
// where it must be read; holding costs one statement each five beats for all that a session
// holds, and at most one more for each revision; waiting costs some looks a second for the
// first two in line, and one a second for everybody else.
package lease

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// Want is what a caller asks for.
type Want struct {
	Name     string // of the lease, with the prefix of its kind
	Limit    int    // how many may hold it together; 0: it is held alone
	Priority int64  // before all of a lower one in the queue
	Recorded bool   // each grant and release is an event
	Value    string // published with the grant
	Client   string // on whose behalf the session takes it, for others to see; empty: its own
}

// Unlimited is the Limit of what any number may share.
const Unlimited = math.MaxInt

// shared says whether others may hold it too.
func (w Want) shared() bool { return w.Limit > 0 }

// HeldError says who holds what could not be had. It is [coordd.ErrHeld].
type HeldError struct {
	Name    string    // of the lock or election
	Holder  string    // the id of the member that holds it alone; empty: others share it, or wait for it
	Member  string    // its name
	Address string    // its address
	Client  string    // on whose behalf it holds, if not its own
	Since   time.Time // by the database's clock: for people
	Token   int64
	Sharing int // how many share it
	Waiting int // how many wait before the caller
}

func (e *HeldError) Error() string {
	switch {
	case e.Holder != "":
		return fmt.Sprintf("%v by %s (member %s) since %s, with token %d", coordd.ErrHeld, e.Member, e.Holder, e.Since.Format(time.RFC3339), e.Token)
	case e.Sharing > 0:
		return fmt.Sprintf("%v by %d that share it", coordd.ErrHeld, e.Sharing)
	}
	return fmt.Sprintf("%v: %d wait for it", coordd.ErrHeld, e.Waiting)
}

// Unwrap is [coordd.ErrHeld].
func (e *HeldError) Unwrap() error { return coordd.ErrHeld }

// living are the states of a member whose rights count.
const living = `('alive', 'draining', 'condemned')`

// queued are the states of a member whose place in a queue counts.
const queued = `('alive', 'draining')`

// ahead counts those who live and wait before a place in the queue; before who has none, all
// do.
const ahead = `(select count(*) from coordd_waiters w join coordd_heartbeats b on b.member_id = w.member_id
	left join coordd_waiters me on me.id = ?
	where w.lease = coordd_leases.name and b.state in ` + queued + ` and w.id <> ?
	and (me.id is null or w.priority > me.priority or w.priority = me.priority and w.ticket < me.ticket))`

const (
	// stmtRead is all that decides whether a right can be had, at one instant. 0 rows: nobody
	// has asked for it before.
	stmtRead = `select coordd_leases.token, coalesce(coordd_leases.holder, ''),
			coalesce(h.state, ''), coalesce(m.name, ''), coalesce(m.address, ''), coordd_leases.client, coordd_leases.since_us, ` + ahead + `,
			(select count(*) from coordd_waiters w where w.id = ?),
			(select count(*) from coordd_shared s where s.lease = coordd_leases.name),
			(select count(*) from coordd_shared s join coordd_heartbeats b on b.member_id = s.member_id
				where s.lease = coordd_leases.name and b.state in ` + living + `),
			f.value, t.value, case when t.text = {history} then 1 else 0 end
		from coordd_leases
		join coordd_meta f on f.name = 'token_floor'
		join coordd_meta t on t.name = 'history'
		left join coordd_heartbeats h on h.member_id = coordd_leases.holder
		left join coordd_members m on m.id = coordd_leases.holder
		where coordd_leases.name = ?`

	// stmtBegin makes the row that is there for ever after. 0 rows: it is there.
	stmtBegin = `insert into coordd_leases (name, token, value, request, since_us, guards)
		values (?, 0, '', '', {now}, 0) {or keep token}`

	// stmtGrant gives the right: alone, or, with no holder, to one more of those who share it.
	// 0 rows: the token has moved, somebody waits before the caller, or the database's history
	// is in doubt.
	stmtGrant = `update coordd_leases set holder = ?, grant_id = ?, token = ?, value = ?, client = ?, since_us = {now}
		where name = ? and token = ? and ` + ahead + ` <= ?
		and exists (select 1 from coordd_meta where name = 'token_floor' and value < ?)
		and ` + journal.Trusted

	// stmtDead is what a grant displaces: who has ended never comes back. The delete waits for
	// guards of those who do not know that they are dead.
	stmtDead = `select s.grant_id from coordd_shared s where s.lease = ?
		and not exists (select 1 from coordd_heartbeats b where b.member_id = s.member_id and b.state in ` + living + `)`
	stmtDisplace = `delete from coordd_shared where grant_id = ?` // 0 rows: another has displaced it
	stmtShare    = `insert into coordd_shared (grant_id, lease, member_id, token, client, since_us, guards) values (?, ?, ?, ?, ?, {now}, 0)`

	// stmtSupersede makes a grant impossible that may still be under way. 0 rows: it, or
	// another, has been given.
	stmtSupersede = `update coordd_leases set token = token + 1, holder = null, grant_id = null
		where name = ? and token = ?`

	stmtMine = `select (select count(*) from coordd_leases where name = ? and grant_id = ? and holder = ?)
		+ (select count(*) from coordd_shared where grant_id = ? and member_id = ?)`

	// These give it back. 0 rows: it is not held any more, or, with the condition, somebody
	// waits for it.
	stmtRelease       = `update coordd_leases set holder = null, grant_id = null, value = '', since_us = {now} where name = ? and grant_id = ? and token = ?`
	stmtReleaseShared = `delete from coordd_shared where lease = ? and grant_id = ? and token = ?`
	andNobodyWaits    = ` and not exists (select 1 from coordd_waiters w where w.lease = ?)`
)

// standing is how a right stands for somebody who wants it.
type standing struct {
	token           int64
	holder          string
	state           string // of the holder; empty: it is not there
	member, address string // of the holder
	client          string
	since           int64
	ahead           int  // who live and wait before the caller
	placed          bool // the caller has a place in the queue
	rows, sharing   int  // of coordd_shared; and of these, who live
	floor, history  int64
	intact          bool
}

// kind is "lock" or "election", and with it the topic of events; subject is the name without it.
func kind(lease string) string {
	kind, _, _ := strings.Cut(lease, "/")
	return kind
}

func subject(lease string) string {
	_, name, _ := strings.Cut(lease, "/")
	return name
}

// called is what people call a lease.
func called(lease string) string { return fmt.Sprintf("%s %q", kind(lease), subject(lease)) }

// free says whether nothing but the queue and the history are in the way.
func (st standing) free(w Want) bool {
	switch st.state {
	case "alive", "draining", "condemned":
		return false
	}
	return st.sharing < max(1, w.Limit)
}

// next is the token that a grant would have.
func (st standing) next() int64 { return max(st.token, st.floor) + 1 }

func (st standing) heldError(w Want) error {
	e := &HeldError{Name: subject(w.Name), Sharing: st.sharing, Waiting: st.ahead}
	if !st.free(w) && st.sharing == 0 {
		e.Holder, e.Member, e.Address, e.Client = st.holder, st.member, st.address, st.client
		e.Since, e.Token = time.UnixMicro(st.since).UTC(), st.token
	}
	return e
}

// certain says whether an error means that nothing was written. All others leave it open.
func certain(err error) bool {
	for _, kind := range []error{coordd.ErrContended, coordd.ErrReadOnly, coordd.ErrForbidden, coordd.ErrSchema, coordd.ErrDenied, coordd.ErrNoDatabase} {
		if errors.Is(err, kind) {
			return !errors.Is(err, coordd.ErrUnknownOutcome)
		}
	}
	return false
}
