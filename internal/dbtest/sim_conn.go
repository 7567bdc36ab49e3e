package dbtest

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"
)

type simConnector struct{ by *Process }

func (c simConnector) Connect(context.Context) (driver.Conn, error) {
	host := c.by.host
	if c.by.killed.Load() {
		return nil, ErrReplyLost
	}
	if e := host.struck(Cut, Away); e != nil && !e.Hangs {
		host.sim.hit(host, e.Fault, "connect")
		return nil, ErrReplyLost
	}
	return &simConn{by: c.by, host: host, sim: host.sim}, nil
}

func (c simConnector) Driver() driver.Driver { return nil }

// simConn is one process's connection to the server.
type simConn struct {
	by     *Process
	host   *Host
	sim    *Sim
	tx     *simTx // the open transaction, which has the server's attention
	broken bool   // by a fault: the pool throws it away
}

func (c *simConn) IsValid() bool                       { return !c.broken }
func (c *simConn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (c *simConn) Begin() (driver.Tx, error)           { return nil, errors.ErrUnsupported }

func (c *simConn) Close() error {
	if c.tx != nil {
		return c.tx.Rollback()
	}
	return nil
}

func (c *simConn) ExecContext(ctx context.Context, stmt string, args []driver.NamedValue) (result driver.Result, err error) {
	err = c.do(ctx, stmt, args, func() error {
		result, err = c.sim.server.exec(stmt, args)
		return err
	})
	return result, err
}

func (c *simConn) QueryContext(ctx context.Context, stmt string, args []driver.NamedValue) (driver.Rows, error) {
	var rows *simRows
	err := c.do(ctx, stmt, args, func() (err error) {
		rows, err = c.sim.server.query(stmt, args)
		return err
	})
	if err != nil {
		return nil, err
	}
	if stmt == c.sim.Marked {
		c.host.mark()
	}
	return rows, nil
}

// do carries a statement to the server and its reply back.
func (c *simConn) do(ctx context.Context, stmt string, args []driver.NamedValue, run func() error) (err error) {
	p := c.by.passage(stmt, args, c.tx != nil)
	defer func() { c.broken = c.broken || err != nil }()
	if err := p.cross(ctx); err != nil {
		return err
	}
	if c.tx != nil {
		if err := run(); err != nil {
			return err
		}
		return p.back(ctx)
	}
	marked := c.host.lastMarked()
	if !p.reads() {
		if e := p.chance(2, Late); e != nil {
			c.later(p, marked, args)
			return p.giveUp(ctx, e)
		}
	}
	if err := c.alone(ctx, p, marked, run); err != nil {
		return err
	}
	return p.back(ctx)
}

// alone runs a statement that is a transaction of its own.
func (c *simConn) alone(ctx context.Context, p *passage, marked time.Duration, run func() error) error {
	if err := c.sim.server.take(ctx); err != nil {
		return err
	}
	defer c.sim.server.yield()
	if err := run(); err != nil {
		return err
	}
	if !p.reads() {
		c.sim.committed(c.host, marked)
	}
	return nil
}

// later runs a statement that its caller has given up, as a server does that was not told. It
// is done before the world is quiet.
func (c *simConn) later(p *passage, marked time.Duration, args []driver.NamedValue) {
	wait := min(between(p.r, 0, 1.5, c.host.scale), c.sim.quiet-c.sim.Since())
	c.sim.zombies.Go(func() {
		time.Sleep(wait)
		c.sim.Note(c.host.Name, "executed late: %s", short(p.stmt))
		err := c.alone(context.Background(), p, marked, func() error {
			_, err := c.sim.server.exec(p.stmt, args)
			return err
		})
		if err != nil {
			c.sim.Violated("executed late: %v", err)
		}
	})
}

// back is the way of a reply.
func (p *passage) back(ctx context.Context) error {
	if p.chance(2, ReplyLost) != nil {
		return ErrReplyLost
	}
	return p.cross(ctx)
}

// giveUp is what a caller sees of a statement that the server has and does not answer.
func (p *passage) giveUp(ctx context.Context, e *Episode) error {
	if e.Hangs && !p.in {
		if err := Pause(ctx, p.host.scale); err != nil {
			return err
		}
	}
	return ErrReplyLost
}

func (c *simConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	tx := &simTx{conn: c, ctx: ctx, marked: c.host.lastMarked()}
	p := c.by.passage("begin", nil, false)
	p.in = true
	if err := p.cross(ctx); err != nil {
		c.broken = true
		return nil, err
	}
	if err := c.sim.server.take(ctx); err != nil {
		return nil, err
	}
	c.tx = tx
	_, err := c.sim.server.exec("begin immediate", nil)
	if err == nil {
		err = p.back(ctx)
	}
	if err != nil {
		c.broken = true
		return nil, errors.Join(err, tx.Rollback())
	}
	return tx, nil
}

// simTx is a transaction. Its context is the one that it was begun with, as commit has none of
// its own and real drivers use that.
type simTx struct {
	conn   *simConn
	ctx    context.Context
	marked time.Duration
}

// Commit ends the transaction, whatever becomes of it.
func (t *simTx) Commit() error {
	c := t.conn
	p := c.by.passage("commit", nil, true)
	if err := p.cross(t.ctx); err != nil {
		c.broken = true
		return errors.Join(err, t.Rollback())
	}
	c.tx = nil
	if e := p.chance(2, Late); e != nil {
		c.broken = true
		// Its rows stay locked meanwhile, so this does not take long.
		wait := min(between(p.r, 0, 0.1, c.host.scale), c.sim.quiet-c.sim.Since())
		c.sim.zombies.Go(func() {
			time.Sleep(wait)
			c.sim.Note(c.host.Name, "executed late: commit")
			if err := t.commit(); err != nil {
				c.sim.Violated("executed late: %v", err)
			}
		})
		return ErrReplyLost
	}
	if err := t.commit(); err != nil {
		return err
	}
	if err := p.back(t.ctx); err != nil {
		c.broken = true
		return err
	}
	return nil
}

func (t *simTx) commit() error {
	sim := t.conn.sim
	defer sim.server.yield()
	if _, err := sim.server.exec("commit", nil); err != nil {
		return err
	}
	sim.committed(t.conn.host, t.marked)
	return nil
}

func (t *simTx) Rollback() error {
	t.conn.tx = nil
	defer t.conn.sim.server.yield()
	_, err := t.conn.sim.server.exec("rollback", nil)
	return err
}
