package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/child"
	"github.com/coordd/coordd/internal/client"
)

// The exit codes, as exitCodes tells them.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitDatabase = 3
	exitSchema   = 4
	exitBusy     = 75 // as EX_TEMPFAIL of sysexits.h

	// Of commands that run another one, as of env, nice and timeout.
	exitLost          = 124
	exitCoordd        = 125
	exitCannotExecute = 126
	exitNotFound      = 127
)

const exitCodes = `  0  it worked
  1  it failed for a reason that has no code of its own
  2  the command line or a setting is wrong; nothing was done
  3  the database or the daemon cannot be reached, or refuses: address, user, password, privilege, read-only
  4  coordd's tables are missing, or older or newer than this program
 75  somebody else holds it, or the wait for it was over

Those of coordd lock and elect are the command's own, 128 and the number of the signal that ended
it, and
 75  the lock was busy, or the wait for it was over; nothing was run
124  the right was lost, and the command was stopped
125  coordd failed for any other reason
126  the command cannot be executed
127  there is no such command`

// usageError is an error that the command line itself is to blame for.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// ended is the exit code of a command that was run, or of a wait that a signal has ended. There is
// nothing to be said about it.
type ended int

func (e ended) Error() string { return fmt.Sprint("exit code ", int(e)) }

// errTimedOut says that a wait was over.
var errTimedOut = errors.New("the wait is over")

// errNotExamined says that a daemon has no database that it could examine.
var errNotExamined = errors.New("there was no database to examine")

// runsAnother marks commands that run another one, whose exit codes are not to be confused with
// theirs.
const runsAnother = "runs another command"

// exitCodeOf is the exit code of a command.
func exitCodeOf(cmd *cobra.Command, err error) int {
	var code ended
	switch {
	case errors.As(err, &code):
		return int(code)
	case err == nil || cmd.Annotations[runsAnother] == "":
		return exitCode(err)
	case is(err, coordd.ErrLost):
		return exitLost
	case is(err, child.ErrNotFound):
		return exitNotFound
	case is(err, child.ErrCannotExecute):
		return exitCannotExecute
	case exitCode(err) == exitBusy:
		return exitBusy
	}
	return exitCoordd
}

func is(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// exitCode is the one table from errors to exit codes.
func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage), is(err, coordd.ErrInvalid):
		return exitUsage
	case is(err, coordd.ErrSchema):
		return exitSchema
	case is(err, coordd.ErrUnreachable, coordd.ErrSlow, coordd.ErrDenied, coordd.ErrNoDatabase,
		coordd.ErrReadOnly, coordd.ErrForbidden, coordd.ErrContended, coordd.ErrUnknownOutcome, client.ErrNoDaemon, errNotExamined):
		return exitDatabase
	case is(err, coordd.ErrHeld, errTimedOut):
		return exitBusy
	}
	return exitFailed
}
