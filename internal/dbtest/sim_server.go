package dbtest

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"modernc.org/sqlite"
)

// simServer is the database: one connection of SQLite in memory, which one transaction holds at
// a time. Others wait for it in virtual time, as they would for a lock.
type simServer struct {
	conn      driver.Conn
	ready     map[string]driver.Stmt
	turn      chan struct{} // has a token while somebody is served
	failovers int
}

func newSimServer(script string) (*simServer, error) {
	conn, err := (&sqlite.Driver{}).Open(":memory:")
	if err != nil {
		return nil, err
	}
	s := &simServer{conn: conn, ready: map[string]driver.Stmt{}, turn: make(chan struct{}, 1)}
	if err := s.script(script); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

func (s *simServer) script(script string) error {
	_, err := s.conn.(driver.ExecerContext).ExecContext(context.Background(), script, nil)
	return err
}

func (s *simServer) close() {
	s.forget()
	s.conn.Close()
}

// forget closes the statements that it has prepared.
func (s *simServer) forget() {
	for _, stmt := range s.ready {
		stmt.Close()
	}
	clear(s.ready)
}

// take waits for the server's attention.
func (s *simServer) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *simServer) yield() { <-s.turn }

// SQLite answers at once. It is given no context, as the driver would start a goroutine for each.

func (s *simServer) exec(stmt string, args []driver.NamedValue) (driver.Result, error) {
	ready, err := s.prepare(stmt)
	if err != nil {
		return nil, err
	}
	return ready.(driver.StmtExecContext).ExecContext(context.Background(), args)
}

// query reads all rows, so that nothing is kept open while they travel.
func (s *simServer) query(stmt string, args []driver.NamedValue) (*simRows, error) {
	ready, err := s.prepare(stmt)
	if err != nil {
		return nil, err
	}
	rows, err := ready.(driver.StmtQueryContext).QueryContext(context.Background(), args)
	if err != nil {
		return nil, err
	}
	all := &simRows{columns: rows.Columns()}
	for {
		row := make([]driver.Value, len(all.columns))
		if err := rows.Next(row); err != nil {
			err = errors.Join(err, rows.Close())
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			return nil, err
		}
		all.rows = append(all.rows, row)
	}
}

func (s *simServer) prepare(stmt string) (driver.Stmt, error) {
	if ready := s.ready[stmt]; ready != nil {
		return ready, nil
	}
	ready, err := s.conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), s.inHistory(stmt))
	if err == nil {
		s.ready[stmt] = ready
	}
	return ready, err
}

// committed tells whoever watches. The server serves nobody else meanwhile.
func (s *Sim) committed(by *Host, marked time.Duration) {
	if s.OnCommit == nil {
		return
	}
	s.OnCommit(Commit{By: by, Marked: marked, Query: s.server.read})
}

// read is a Query.
func (s *simServer) read(stmt string, numbers ...int64) [][]any {
	var args []driver.NamedValue
	for i, n := range numbers {
		args = append(args, driver.NamedValue{Ordinal: i + 1, Value: n})
	}
	found, err := s.query(stmt, args)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", stmt, err)) // a mistake of the test
	}
	all := make([][]any, len(found.rows))
	for i, row := range found.rows {
		for _, v := range row {
			all[i] = append(all[i], v)
		}
	}
	return all
}

// simRows are rows that have been read.
type simRows struct {
	columns []string
	rows    [][]driver.Value
}

func (r *simRows) Columns() []string { return r.columns }
func (r *simRows) Close() error      { return nil }

func (r *simRows) Next(dest []driver.Value) error {
	if len(r.rows) == 0 {
		return io.EOF
	}
	copy(dest, r.rows[0])
	r.rows = r.rows[1:]
	return nil
}
