package memdb

import (
	"context"
	"database/sql/driver"
	"errors"
)

// Connector makes connections that take turns: each statement has one, and so has each
// transaction from its beginning to its end.
func (s *Server) Connector() driver.Connector { return connector{s} }

type connector struct{ server *Server }

func (c connector) Connect(context.Context) (driver.Conn, error) { return &conn{server: c.server}, nil }
func (c connector) Driver() driver.Driver                        { return nil }

// conn is one connection, which serves one caller at a time.
type conn struct {
	server *Server
	tx     *tx // the open transaction, which has the turn
}

func (c *conn) Prepare(stmt string) (driver.Stmt, error) { return prepared{c, stmt}, nil }
func (c *conn) Begin() (driver.Tx, error)                { return c.BeginTx(context.Background(), driver.TxOptions{}) }

func (c *conn) Close() error {
	if c.tx != nil {
		return c.tx.Rollback()
	}
	return nil
}

// BeginTx begins a transaction. They are serializable whatever one asks for.
func (c *conn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	if err := c.server.Take(ctx); err != nil {
		return nil, err
	}
	if _, err := c.server.Exec("begin immediate", nil); err != nil {
		c.server.Yield()
		return nil, err
	}
	c.tx = &tx{c}
	return c.tx, nil
}

func (c *conn) ExecContext(ctx context.Context, stmt string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	defer c.yield()
	return c.server.Exec(stmt, args)
}

func (c *conn) QueryContext(ctx context.Context, stmt string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	defer c.yield()
	return c.server.Query(stmt, args)
}

// take has the turn for one statement, which it has in a transaction anyway.
func (c *conn) take(ctx context.Context) error {
	if c.tx != nil {
		return ctx.Err()
	}
	return c.server.Take(ctx)
}

func (c *conn) yield() {
	if c.tx == nil {
		c.server.Yield()
	}
}

type tx struct{ conn *conn }

// Commit ends the transaction in any case, also where SQLite would leave it open.
func (t *tx) Commit() error {
	_, err := t.conn.server.Exec("commit", nil)
	if err != nil {
		return errors.Join(err, t.Rollback())
	}
	t.conn.tx = nil
	t.conn.server.Yield()
	return nil
}

func (t *tx) Rollback() error {
	_, err := t.conn.server.Exec("rollback", nil)
	t.conn.tx = nil
	t.conn.server.Yield()
	return err
}

// prepared is a statement, which the server keeps prepared.
type prepared struct {
	conn *conn
	stmt string
}

func (p prepared) Close() error  { return nil }
func (p prepared) NumInput() int { return -1 }

func (p prepared) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return p.conn.ExecContext(ctx, p.stmt, args)
}

func (p prepared) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return p.conn.QueryContext(ctx, p.stmt, args)
}

func (p prepared) Exec([]driver.Value) (driver.Result, error) { return nil, errors.ErrUnsupported }
func (p prepared) Query([]driver.Value) (driver.Rows, error)  { return nil, errors.ErrUnsupported }
