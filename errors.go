package coordd

import (
	"database/sql"
	"errors"
	"strings"

	"github.com/coordd/coordd/internal/dialect"
)

// What a caller may have to tell apart. They are wrapped; test with [errors.Is].
var (
	// ErrLost says that a session, or a right that hung on it, has ended for good.
	ErrLost = errors.New("lost")

	// ErrHistoryLost says that the database has lost commits that were seen, or may have: it
	// was restored, or another server took over. What was learned from it may be wrong.
	ErrHistoryLost = errors.New("the database has lost its history")

	// ErrHeld says that somebody else holds what was asked for, or waits for it before the
	// caller.
	ErrHeld = errors.New("held")

	// ErrFenced says that a right has been given to another since: the transaction that was
	// to be guarded by it must not be committed.
	ErrFenced = errors.New("fenced off: the right was given to another")

	// ErrQuarantine says that nothing is granted yet, as the database has lost its history
	// and rights of the old one may still be valid. It is ended by a member that has watched
	// it for max_ttl and a little more.
	ErrQuarantine = errors.New("nothing is granted until all rights from before the database's failover have run out")

	// ErrNone says that there is no such thing, or that it is not in the state that was asked
	// for.
	ErrNone = errors.New("there is none")

	// ErrInvalid says that a name or a setting cannot be used; nothing was done.
	ErrInvalid = errors.New("invalid configuration")

	// ErrUnknownOutcome says that a commit was sent and not answered.
	ErrUnknownOutcome = errors.New("the commit was not answered")

	// ErrSchema says that coordd's tables are missing, or older or newer than this program.
	ErrSchema = errors.New("coordd's tables do not fit this program")

	// The database said no, or nothing. ErrUnreachable and ErrSlow leave the outcome of a
	// write unknown; the others mean that nothing was written.
	ErrUnreachable = errors.New("the database cannot be reached")
	ErrSlow        = errors.New("the database did not answer in time")
	ErrDenied      = errors.New("the database refused the user or password")
	ErrNoDatabase  = errors.New("the server has no such database")
	ErrReadOnly    = errors.New("the database is read-only")
	ErrForbidden   = errors.New("the database user lacks a privilege")
	ErrContended   = errors.New("other transactions kept the rows locked")
)

// Error is a failed statement: what it means, what the database said, and what to do.
type Error struct {
	Kind error  // one of the sentinels above
	Err  error  // as the driver gave it
	Hint string // the next step, in the imperative
}

func (e *Error) Error() string {
	return e.Kind.Error() + ": " + oneLine(e.Err.Error()) + " (" + e.Hint + ")"
}

// Unwrap makes both the kind and the driver's error visible to errors.Is and errors.As.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }

// explain gives an error of the driver its meaning. What it cannot explain it returns
// unchanged.
func (s *server) explain(err error) error {
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if explained := new(Error); errors.As(err, &explained) {
		return err
	}
	known := s.meaning(err)
	if known.Kind == nil {
		return err
	}
	known.Err = err
	return &known
}

// meaning is the one table from what a database says to what coordd says.
func (s *server) meaning(err error) Error {
	switch s.family.Class(err) {
	case dialect.Transient:
		return Error{Kind: ErrContended, Hint: "look for a transaction that was left open"}
	case dialect.Unreachable:
		return Error{Kind: ErrUnreachable, Hint: s.family.Unreachable}
	case dialect.Slow:
		return Error{Kind: ErrSlow, Hint: "check the server's load and its locks, the network, and that the pool is not exhausted"}
	case dialect.Denied:
		return Error{Kind: ErrDenied, Hint: "check the user and password of the DSN"}
	case dialect.NoDatabase:
		return Error{Kind: ErrNoDatabase, Hint: "create the database first, or correct its name in the DSN"}
	case dialect.ReadOnly:
		return Error{Kind: ErrReadOnly, Hint: s.family.ReadOnly}
	case dialect.NoTable:
		return Error{Kind: ErrSchema, Hint: "run `coordd migrate up`"}
	case dialect.Forbidden:
		return Error{Kind: ErrForbidden, Hint: "grant it: the README has the statements under Grants"}
	default:
		return Error{}
	}
}

// oneLine keeps what drivers say over several lines on one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
