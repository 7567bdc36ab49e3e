// Package dialect holds what differs between databases: a few fragments of SQL,
// the isolation level of a transaction, the settings that bound a statement, and
// what an error means. One small file per database; nothing else in coordd knows
// which database it talks to.
package dialect

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Dialect is one kind of database.
type Dialect struct {
	Name      string             // as people write it: "PostgreSQL"
	Isolation sql.IsolationLevel // of every transaction

	// Bounds gives the session settings that end a statement, a lock wait and an
	// idle transaction on the server once d has passed.
	Bounds func(d time.Duration) map[string]string

	// EndIdle is a statement that has the server end the transaction that it begins if its process freezes
	// in it, as nobody else could change what it has locked; empty: the database has none.
	EndIdle string

	// WakeUp is a statement that rings at those who listen, with one argument for them to
	// read; empty: the database has none.
	WakeUp string

	Unreachable string // what to do when it cannot be reached
	ReadOnly    string // what to do when it is read-only

	fragments *strings.Replacer // {now} and the like
	numbered  bool              // arguments are $1, $2, not ?
	class     func(error) Class // of an error that the server sent
}

// Class says what a failed statement means to the one who sent it.
type Class int

// The classes. Only Transient promises that nothing was committed.
const (
	Other       Class = iota
	Transient         // the server rolled it back because of others: run it again
	Unreachable       // no connection, or it broke
	Slow              // no answer in time
	Denied            // wrong user or password
	NoDatabase        // the server has no such database
	ReadOnly          // a replica, or a server set read-only
	NoTable           // a table or column of coordd's is missing
	Forbidden         // the user lacks a privilege
)

// Text puts a statement into the words of the dialect: the {fragments} and the
// ? arguments. Statements hold no question mark and no brace of any other kind.
func (d *Dialect) Text(stmt string) string {
	stmt = d.fragments.Replace(stmt)
	if !d.numbered {
		return stmt
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(stmt, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		stmt = after
	}
}

// Class tells what err means, by its code and never by its words.
func (d *Dialect) Class(err error) Class {
	if c := d.class(err); c != Other {
		return c
	}
	if errors.Is(err, context.Canceled) {
		return Other // the caller's own doing
	}
	var network net.Error
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Slow
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, sql.ErrConnDone), errors.Is(err, net.ErrClosed), errors.As(err, &dns), errors.As(err, &network):
		return Unreachable
	}
	return Other
}

// What to do where there is a server.
const (
	checkServer = "check the host and port, and that the server is running"
	usePrimary  = "connect to the primary: this server is a replica or was set read-only"
)

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
