// Package memdb is a database in memory for tests: one connection of SQLite, which any number
// of callers share by turns, one transaction at a time.
//
// SQLite makes those who find it locked wait in real time, or fail. Here they wait on a
// channel: for as long as their context lasts, and in the virtual time of a testing/synctest
// bubble.
package memdb

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"sync"

	"modernc.org/sqlite"
)

// ErrClosed is what callers get after Close.
var ErrClosed = errors.New("the database in memory is closed")

// Server is one database. Whoever has the turn may use it.
type Server struct {
	turn chan struct{} // has a token while somebody has the turn
	done chan struct{} // closed by Close

	mu    sync.Mutex // holds off Close
	conn  driver.Conn
	ready map[string]driver.Stmt
}

// Open makes a database by a script. It may be used in the synctest bubble in which it was
// opened, or outside of any.
func Open(script string) (*Server, error) {
	conn, err := (&sqlite.Driver{}).Open(":memory:")
	if err != nil {
		return nil, err
	}
	s := &Server{conn: conn, ready: map[string]driver.Stmt{}, turn: make(chan struct{}, 1), done: make(chan struct{})}
	if _, err := conn.(driver.ExecerContext).ExecContext(context.Background(), script, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

// Close ends the database and all that waits for its turn. It is called once.
func (s *Server) Close() error {
	close(s.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, stmt := range s.ready {
		errs = append(errs, stmt.Close())
	}
	s.ready = nil
	return errors.Join(append(errs, s.conn.Close())...)
}

// Take waits for the turn, and for as long as ctx lasts.
func (s *Server) Take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return ErrClosed
	}
}

// Yield gives up the turn.
func (s *Server) Yield() { <-s.turn }

// SQLite answers at once. It is given no context, as the driver would start a goroutine for each.

// Exec runs a statement. The caller has the turn.
func (s *Server) Exec(stmt string, args []driver.NamedValue) (driver.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready, err := s.prepare(stmt)
	if err != nil {
		return nil, err
	}
	return ready.(driver.StmtExecContext).ExecContext(context.Background(), args)
}

// Query reads all rows of a statement, so that nothing is kept open while they travel. The
// caller has the turn.
func (s *Server) Query(stmt string, args []driver.NamedValue) (*Rows, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready, err := s.prepare(stmt)
	if err != nil {
		return nil, err
	}
	rows, err := ready.(driver.StmtQueryContext).QueryContext(context.Background(), args)
	if err != nil {
		return nil, err
	}
	all := &Rows{columns: rows.Columns()}
	for {
		row := make([]driver.Value, len(all.columns))
		if err := rows.Next(row); err != nil {
			err = errors.Join(err, rows.Close())
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			return nil, err
		}
		all.Values = append(all.Values, row)
	}
}

func (s *Server) prepare(stmt string) (driver.Stmt, error) {
	if s.ready == nil {
		return nil, ErrClosed
	}
	if ready := s.ready[stmt]; ready != nil {
		return ready, nil
	}
	ready, err := s.conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), stmt)
	if err == nil {
		s.ready[stmt] = ready
	}
	return ready, err
}

// Rows are rows that have been read.
type Rows struct {
	Values  [][]driver.Value // that are left
	columns []string
}

// Columns are their names.
func (r *Rows) Columns() []string { return r.columns }

// Close does nothing.
func (r *Rows) Close() error { return nil }

// Next copies the next row.
func (r *Rows) Next(dest []driver.Value) error {
	if len(r.Values) == 0 {
		return io.EOF
	}
	copy(dest, r.Values[0])
	r.Values = r.Values[1:]
	return nil
}
