package main

import (
	"errors"

	"github.com/coordd/coordd"
)

// The exit codes, as exitCodes tells them.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitDatabase = 3
	exitSchema   = 4
)

const exitCodes = `  0  it worked
  1  it failed for a reason that has no code of its own
  2  the command line or a setting is wrong; nothing was done
  3  the database cannot be reached or refuses: address, user, password, privilege, read-only
  4  coordd's tables are missing, or older or newer than this program`

// usageError is an error that the command line itself is to blame for.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode is the one table from errors to exit codes.
func exitCode(err error) int {
	is := func(kinds ...error) bool {
		for _, kind := range kinds {
			if errors.Is(err, kind) {
				return true
			}
		}
		return false
	}
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage), is(coordd.ErrInvalid):
		return exitUsage
	case is(coordd.ErrSchema):
		return exitSchema
	case is(coordd.ErrUnreachable, coordd.ErrSlow, coordd.ErrDenied, coordd.ErrNoDatabase,
		coordd.ErrReadOnly, coordd.ErrForbidden, coordd.ErrContended, coordd.ErrUnknownOutcome):
		return exitDatabase
	}
	return exitFailed
}
