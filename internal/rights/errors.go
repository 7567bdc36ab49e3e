package rights

import (
	"errors"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/lock"
)

// What a request fails with beside the errors of coordd.
var (
	// ErrOther says that the client has this right, or waits for it, in another way: shared or not,
	// with other permits or another priority.
	ErrOther = errors.New("the client has asked for it in another way")

	// ErrNotYours says that somebody else has taken this right.
	ErrNotYours = errors.New("somebody else has taken it")

	// ErrFull says that the desk has as many rights, or as many who wait, as it takes.
	ErrFull = errors.New("the daemon holds as many rights for its clients as it takes")

	// ErrNoSession says that the daemon has no session that carries rights, now.
	ErrNoSession = errors.New("no session of the daemon carries rights now")
)

// BusyError says who holds what could not be had. It is [coordd.ErrHeld].
type BusyError struct {
	Held   *lock.HeldError
	Queued bool // the client has a place in the queue, and keeps it for a ttl
}

func (e *BusyError) Error() string { return e.Held.Error() }

// Unwrap is the [*lock.HeldError].
func (e *BusyError) Unwrap() error { return e.Held }

// ElsewhereError says that the client has the right by another daemon. It is [coordd.ErrHeld].
type ElsewhereError struct{ Held *lock.HeldError }

func (e *ElsewhereError) Error() string {
	return "by another daemon the client itself: " + e.Held.Error()
}

// Unwrap is the [*lock.HeldError].
func (e *ElsewhereError) Unwrap() error { return e.Held }

// LostError says that a right is not held any more, or not under the token that was named. It is
// [coordd.ErrLost].
type LostError struct {
	Why Reason
	Err error // nil: nothing is known of it
}

func (e *LostError) Error() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Why == GivenUp:
		return "its client has given it up"
	case e.Why == Expired:
		return "its client has not renewed it in time"
	case e.Why == Cut:
		return "the connection to which it was tied has ended"
	}
	return "it is not held under this token"
}

// Unwrap is [coordd.ErrLost], and why.
func (e *LostError) Unwrap() []error { return []error{coordd.ErrLost, e.Err} }

// errQueued says that it is not yet the client's turn, and errGone that a right of the same key
// was being given back, and is.
var (
	errQueued = errors.New("it is not yet its turn")
	errGone   = errors.New("it was given back")
)
