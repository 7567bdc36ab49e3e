package dbtest

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/migrations"
)

// A Tap sits between a pool and its driver. It counts the statements that pass, and lets a
// test disturb them.
type Tap struct {
	mu         sync.Mutex
	statements int
	disturb    Disturbance
}

// A Disturbance is called in place of each statement; "begin", "commit" and "rollback" are
// statements too. It calls do, or not, or late, and what it returns is the reply: an error
// after do has succeeded is a reply that was lost. It may run concurrently.
type Disturbance func(ctx context.Context, stmt string, do func() error) error

// ErrReplyLost is what a Disturbance gives the driver's caller in place of a reply. It is
// not driver.ErrBadConn, which would promise that nothing was sent.
var ErrReplyLost = &lost{}

type lost struct{}

func (*lost) Error() string   { return "the reply was lost" }
func (*lost) Timeout() bool   { return true } // net.Error: the connection broke
func (*lost) Temporary() bool { return false }

// Pause delays a statement by d, or until its context has ended, as a driver would then
// give up. In a synctest bubble nothing may sleep through the end of that context inside
// of a transaction: database/sql waits for it on a mutex, and time stands still.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// OpenTapped is Open with a Tap.
func OpenTapped(t testing.TB, s string) (*coordd.DB, *Tap) {
	t.Helper()
	tap := new(Tap)
	return open(t, s, bound, tap), tap
}

// VirtualTime is a database for a test in a synctest bubble: a migrated SQLite file with
// two pools on it, the second one tapped. They have no busy timeout, as SQLite would wait in
// real time; coordd's own retries wait in the bubble's.
func VirtualTime(t testing.TB) (quick, tapped *coordd.DB, tap *Tap) {
	t.Helper()
	file := SQLiteFile(t)
	tap = new(Tap)
	quick, tapped = open(t, file, 0, nil), open(t, file, 0, tap)
	if err := migrations.Up(t.Context(), quick); err != nil {
		t.Fatal(err)
	}
	tapped.Pool().SetMaxOpenConns(4) // members do not wait for each other's connection
	return quick, tapped, tap
}

// Statements is how many statements have passed.
func (t *Tap) Statements() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.statements
}

// Disturb has d called in place of each statement from now on; nil disturbs nothing.
func (t *Tap) Disturb(d Disturbance) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disturb = d
}

func (t *Tap) pass(ctx context.Context, stmt string, do func() error) error {
	t.mu.Lock()
	t.statements++
	disturb := t.disturb
	t.mu.Unlock()
	if disturb == nil {
		return do()
	}
	return disturb(ctx, stmt, do)
}

type tapConnector struct {
	driver.Connector
	tap *Tap
}

func (c tapConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &tapConn{conn, c.tap}, nil
}

// tapConn forwards what database/sql asks of a connection of our three drivers.
type tapConn struct {
	driver.Conn
	tap *Tap
}

func (c *tapConn) ExecContext(ctx context.Context, stmt string, args []driver.NamedValue) (result driver.Result, err error) {
	err = c.tap.pass(ctx, stmt, func() error {
		result, err = c.Conn.(driver.ExecerContext).ExecContext(ctx, stmt, args)
		return err
	})
	return result, err
}

func (c *tapConn) QueryContext(ctx context.Context, stmt string, args []driver.NamedValue) (rows driver.Rows, err error) {
	err = c.tap.pass(ctx, stmt, func() error {
		rows, err = c.Conn.(driver.QueryerContext).QueryContext(ctx, stmt, args)
		return err
	})
	if err != nil && rows != nil {
		err = errors.Join(err, rows.Close())
		rows = nil
	}
	return rows, err
}

func (c *tapConn) BeginTx(ctx context.Context, opts driver.TxOptions) (tx driver.Tx, err error) {
	err = c.tap.pass(ctx, "begin", func() error {
		tx, err = c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
		return err
	})
	if err != nil {
		return nil, err
	}
	return tapTx{tx, c.tap}, nil
}

func (c *tapConn) PrepareContext(ctx context.Context, stmt string) (driver.Stmt, error) {
	return c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, stmt)
}

func (c *tapConn) Ping(ctx context.Context) error { return c.Conn.(driver.Pinger).Ping(ctx) }

func (c *tapConn) ResetSession(ctx context.Context) error {
	return c.Conn.(driver.SessionResetter).ResetSession(ctx)
}

func (c *tapConn) IsValid() bool {
	v, ok := c.Conn.(driver.Validator)
	return !ok || v.IsValid()
}

func (c *tapConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

type tapTx struct {
	driver.Tx
	tap *Tap
}

func (t tapTx) Commit() error { return t.tap.pass(context.Background(), "commit", t.Tx.Commit) }
func (t tapTx) Rollback() error {
	return t.tap.pass(context.Background(), "rollback", t.Tx.Rollback)
}
