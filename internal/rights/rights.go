// Package rights is what a daemon holds on behalf of its clients: processes beside it, in any
// language, that have no session of their own.
//
// The daemon's session holds the lock or the leadership; in the database it is the session's, with
// the client's id beside it. The client has it for as long as it renews it, and never longer than
// the daemon's session is valid. It knows so by its own clock, as a session does:
//
//	client     sends ──────── what it was promised (valid) ────────▶ must have stopped
//	               └▶ is received, answered            (an answer that comes late promises less: time runs since sending)
//	daemon              └───── at least as long, by its own clock ─────▶ gives it to nobody else before
//
// Each renewal promises
//
//	valid = 98 % of min(ttl, what is left of the session's right when the daemon answers)
//
// and the client counts from the moment at which it sent the request, by a clock that goes on while
// the machine sleeps. The clocks of client and daemon may each be off by 1 % in rate. Then the
// client's time is over
//
//   - before the daemon's session is suspended, as sending precedes answering. So whatever ends a
//     session (a freeze, a lost database, an operator) has nothing to add: whoever is granted
//     the right after it waits until the session's right has run out.
//   - before ttl has passed at the daemon since it answered. Not sooner than that does it give
//     back what is not renewed.
//
// A promise is kept whatever happens to the right: one that somebody asked for, or that a draining or a
// leaving member must hand over, is not renewed any more, and given back when what was promised has passed, or the
// client has given it up. What the client gives up is given back at once: it must have stopped by
// then.
//
// An answer that comes after a wait promises by the same rule: time runs since the request was
// sent. Where all of it has passed, the client has the right and cannot count on it yet; it renews
// at once, and the answer to that counts.
//
// A client that waits has a place in the queue, which it keeps from one request to the next: it is
// given up when none was under way for a ttl. What it is granted meanwhile is kept for as long.
// Places and rights are in the daemon's memory: with its session they are gone, and whoever renews
// by its token is told that it has lost.
//
// A tied right ends as soon as the client's connection does, which the system closes when a process
// ends, however it ends. A client that closes it must have stopped before. It is for
// clients of the same host, as anything in between may cut a connection whose client lives. It is
// tied to the connection of its first answer, and to none for good once a request on another one was
// answered: a request may be late, and its connection given up, while the client counts on an answer that
// came on another.
//
// A renewal costs no statement. A right that was waited for costs what waiting costs: some
// looks a second for the first two in line, one a second for everybody else.
package rights

import (
	"log/slog"
	"sync"
	"time"

	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/clock"
)

// Kind is what a right is to.
type Kind string

// The kinds.
const (
	Lock     Kind = "lock"
	Election Kind = "election"
)

// Key names a right: what to, and whose. A client's id is drawn by the client for one holder: two
// that share it share the right.
type Key struct {
	Kind   Kind
	Name   string
	Client string
}

// Config is what a desk works with. Only Sessions is needed.
type Config struct {
	// Sessions are those of this process, now. The first that is valid holds what is taken.
	Sessions func() []*heartbeat.Session

	Most    int // rights and places at once; 0 means 10,000
	Waiting int // places among them, each of which costs statements; 0 means 1,000

	Now    func() time.Duration // the clock; nil means this machine's
	Logger *slog.Logger         // hears of rights that did not end by their clients' will; nil means silence
}

// How long a client may ask for.
const (
	LeastTTL   = time.Second
	DefaultTTL = 10 * time.Second
	MostTTL    = time.Minute
)

// Desk is where clients ask for rights. It is safe for concurrent use. What it starts ends with the
// session on which it hangs, whose Leave waits for it.
type Desk struct {
	Config

	mu     sync.Mutex
	rights map[Key]*right
	leads  map[string]*right // who leads an election
	counts map[Kind]*Counts
}

// Counts are numbers to look at from outside.
type Counts struct {
	Held, Waiting    int   // now
	Granted, Renewed int64 // in all
	Ended            map[Reason]int64
}

// Reason says in one word why a right has ended.
type Reason string

// The reasons. The first three are the client's own doing.
const (
	GivenUp   Reason = "given_up"
	Expired   Reason = "expired" // it was not renewed
	Cut       Reason = "cut"     // the connection to which it was tied has ended
	Requested Reason = "requested"
	Unfit     Reason = "unfit" // the member drains
	Lost      Reason = "lost"  // with the session, for now or for good
)

// Reasons are all that there are.
var Reasons = []Reason{GivenUp, Expired, Cut, Requested, Unfit, Lost}

// New makes a desk.
func New(cfg Config) *Desk {
	if cfg.Most == 0 {
		cfg.Most = 10_000
	}
	if cfg.Waiting == 0 {
		cfg.Waiting = 1_000
	}
	if cfg.Now == nil {
		cfg.Now = clock.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Desk{
		Config: cfg, rights: map[Key]*right{}, leads: map[string]*right{},
		counts: map[Kind]*Counts{Lock: {Ended: map[Reason]int64{}}, Election: {Ended: map[Reason]int64{}}},
	}
}

// Ask is what a client asks for. A renewal says the same again; TTL, Wait, Value and Tie may differ.
type Ask struct {
	Key
	By By

	Shared   bool // of a lock: others may share it
	Permits  int  // of a lock: so many may hold it; 0: it is no semaphore
	Priority int  // of an election: among those who wait
	Value    *string

	TTL  time.Duration   // 0 means DefaultTTL
	Wait time.Duration   // for one's turn; 0: take no place
	Tie  <-chan struct{} // closed when the client's connection has ended; nil: it does not matter

	// Token is that of the right that is to be renewed. 0: the right is taken if it is not held.
	Token int64
}

// By is who asks. Only who took a right may renew it or give it up, and an administrator.
type By struct {
	Name  string
	Admin bool
}

// Grant is a right as its client may know it.
type Grant struct {
	Key
	State    State
	Token    int64         // 0: it is not held yet
	Valid    time.Duration // since the request was sent that this answers; 0: it promises nothing
	TTL      time.Duration
	Shared   bool
	Permits  int
	Priority int
	Value    string
	Member   string // the id of the member whose session holds it
	Tied     bool
}

// State is how a right stands.
type State string

// The states.
const (
	Waits State = "waiting" // it has a place in the queue
	Holds State = "held"
	Ends  State = "ending" // it is not renewed any more, and given back when what was promised has passed
)

// valid is what a client may be promised whose right lasts for so long by the daemon's clock: the
// rates of both clocks may be off by 1 %. It counts in whole milliseconds.
func valid(left time.Duration) time.Duration {
	return (left - left*2/100).Truncate(time.Millisecond)
}
