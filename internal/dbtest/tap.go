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
	written    func(stmt string, rows int64)
	zombies    int // statements that are to be executed later
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

// ErrBroken is ErrReplyLost, and the pool throws the connection away, with the transaction that
// was open on it.
var ErrBroken = &broken{}

type broken struct{ lost }

// Later is what a Disturbance returns, without calling do, for a statement that the server has
// and that its sender has given up: it is executed when that channel is closed, and then its
// connection ends. Until then the transaction that it belongs to stays open.
func Later(when <-chan struct{}) error { return &later{when: when} }

type later struct {
	lost
	when <-chan struct{}
}

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
	t.Cleanup(tap.Settle)
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

// Settle waits until all statements are executed that are to be executed later.
func (t *Tap) Settle() {
	for t.late(0) > 0 {
		time.Sleep(time.Millisecond)
	}
}

// late counts statements that are to be executed later.
func (t *Tap) late(more int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.zombies += more
	return t.zombies
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

// Watch has w called for each statement that has changed rows, with how many, once that is committed;
// nil watches nothing. It may run concurrently.
func (t *Tap) Watch(w func(stmt string, rows int64)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written = w
}

// change is a statement that has changed rows.
type change struct {
	stmt string
	rows int64
}

func (t *Tap) tell(changes ...change) {
	t.mu.Lock()
	w := t.written
	t.mu.Unlock()
	if w == nil {
		return
	}
	for _, done := range changes {
		w(done.stmt, done.rows)
	}
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
	return &tapConn{Conn: conn, tap: c.tap}, nil
}

// tapConn forwards what database/sql asks of a connection of our three drivers.
type tapConn struct {
	driver.Conn
	tap    *Tap
	tx     *tapTx // that is open on it
	broken bool
	gone   bool // it belongs to a statement that is executed later
}

// pass is the tap's. Late executes the statement for nobody; nil: later is never.
func (c *tapConn) pass(ctx context.Context, stmt string, do func() error, late func(ctx context.Context) error) error {
	err := c.tap.pass(ctx, stmt, do)
	c.broken = c.broken || errors.Is(err, ErrBroken)
	if zombie := new(later); errors.As(err, &zombie) {
		c.gone = true
		c.tap.late(1)
		go func() {
			defer c.tap.late(-1)
			<-zombie.when
			if late != nil {
				late(context.WithoutCancel(ctx))
			}
			c.Conn.Close()
		}()
	}
	return err
}

func (c *tapConn) exec(ctx context.Context, stmt string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, stmt, args)
	if err != nil {
		return result, err
	}
	if rows, uncounted := result.RowsAffected(); uncounted == nil && rows > 0 { // what does not count has changed none
		c.changed(change{stmt, rows})
	}
	return result, nil
}

func (c *tapConn) changed(rows change) {
	if c.tx != nil {
		c.tx.changes = append(c.tx.changes, rows)
	} else {
		c.tap.tell(rows)
	}
}

func (c *tapConn) ExecContext(ctx context.Context, stmt string, args []driver.NamedValue) (result driver.Result, err error) {
	do := func() error {
		result, err = c.exec(ctx, stmt, args)
		return err
	}
	late := func(ctx context.Context) error {
		_, err := c.exec(ctx, stmt, args)
		return err
	}
	err = c.pass(ctx, stmt, do, late)
	return result, err
}

func (c *tapConn) QueryContext(ctx context.Context, stmt string, args []driver.NamedValue) (rows driver.Rows, err error) {
	err = c.pass(ctx, stmt, func() error {
		rows, err = c.Conn.(driver.QueryerContext).QueryContext(ctx, stmt, args)
		return err
	}, nil)
	if err != nil && rows != nil {
		err = errors.Join(err, rows.Close())
		rows = nil
	}
	return rows, err
}

func (c *tapConn) BeginTx(ctx context.Context, opts driver.TxOptions) (tx driver.Tx, err error) {
	err = c.pass(ctx, "begin", func() error {
		tx, err = c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	c.tx = &tapTx{Tx: tx, conn: c}
	return c.tx, nil
}

// Close leaves the connection to a statement that is executed later.
func (c *tapConn) Close() error {
	if c.gone {
		return nil
	}
	return c.Conn.Close()
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
	return !c.gone && !c.broken && (!ok || v.IsValid())
}

func (c *tapConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

type tapTx struct {
	driver.Tx
	conn    *tapConn
	changes []change
}

// Commit is executed later in words, as a driver's own may be bound to a context that has ended.
func (t *tapTx) Commit() error {
	commit := func() error {
		err := t.Tx.Commit()
		if err == nil {
			t.conn.tap.tell(t.changes...)
		}
		return err
	}
	t.conn.tx = nil
	return t.conn.pass(context.Background(), "commit", commit, func(ctx context.Context) error {
		_, err := t.conn.exec(ctx, "commit", nil)
		return err
	})
}

func (t *tapTx) Rollback() error {
	if t.conn.gone {
		return ErrReplyLost // it ends with its connection
	}
	t.conn.tx = nil
	return t.conn.pass(context.Background(), "rollback", t.Tx.Rollback, nil)
}
