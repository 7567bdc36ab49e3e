package memdb

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counter is a pool on a database with a counter, and with rows that must have a parent once
// they are committed.
func counter(t *testing.T) *sql.DB {
	t.Helper()
	server, err := Open(`pragma foreign_keys = on;
		create table counter (n integer not null);
		insert into counter values (0);
		create table rows (id integer primary key, parent integer references rows (id) deferrable initially deferred)`)
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(server.Connector())
	t.Cleanup(func() {
		pool.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}

func begun(ctx context.Context, t *testing.T, pool *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(`update counter set n = n + 1`); err != nil {
		t.Fatal(err)
	}
	return tx
}

func value(t *testing.T, pool *sql.DB) (n int) {
	t.Helper()
	if err := pool.QueryRow(`select n from counter`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Reading and then writing in a transaction loses nothing.
func TestTransactionsTakeTurns(t *testing.T) {
	pool := counter(t)
	increment := func() error {
		tx, err := pool.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		var n int
		if err := tx.QueryRow(`select n from counter`).Scan(&n); err != nil {
			return err
		}
		if _, err := tx.Exec(`update counter set n = ?`, n+1); err != nil {
			return err
		}
		return tx.Commit()
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for range 20 {
				if err := increment(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := value(t, pool); got != 200 {
		t.Fatalf("got %d, want 200", got)
	}
}

// However a transaction fails, it leaves nothing behind and holds nobody up.
func TestAFailedTransactionLeavesNothing(t *testing.T) {
	pool := counter(t)
	for name, fail := range map[string]func(t *testing.T, tx *sql.Tx, cancel func()) error{
		"rolled back": func(_ *testing.T, tx *sql.Tx, _ func()) error { return errors.Join(tx.Rollback(), sql.ErrTxDone) },
		"cancelled":   func(_ *testing.T, tx *sql.Tx, cancel func()) error { cancel(); return tx.Commit() },
		"refused": func(t *testing.T, tx *sql.Tx, _ func()) error {
			if _, err := tx.Exec(`insert into rows values (1, 42)`); err != nil {
				t.Fatal(err)
			}
			return tx.Commit() // there is no parent 42
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := fail(t, begun(ctx, t, pool), cancel); err == nil {
				t.Fatal("got nil, want an error")
			}
			if got := value(t, pool); got != 0 {
				t.Fatalf("got %d, want 0", got)
			}
		})
	}
}

// A reader waits for the end of a transaction, or of its own context.
func TestWhoWaitsHearsOfItsContext(t *testing.T) {
	pool := counter(t)
	tx := begun(t.Context(), t, pool)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- pool.QueryRowContext(ctx, `select n from counter`).Err() }()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want %v", err, context.Canceled)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := value(t, pool); got != 1 {
		t.Fatalf("got %d, want 1", got)
	}
}

func TestAPreparedStatementIsUsedAgain(t *testing.T) {
	pool := counter(t)
	set, err := pool.Prepare(`update counter set n = ?`)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	for want := range 3 {
		if _, err := set.Exec(want); err != nil {
			t.Fatal(err)
		}
		if got := value(t, pool); got != want {
			t.Fatalf("got %d, want %d", got, want)
		}
	}
}

// Closing holds up nobody, and nobody holds it up.
func TestCloseEndsWaiting(t *testing.T) {
	server, err := Open(`create table counter (n integer)`)
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(server.Connector())
	defer pool.Close()
	tx, err := pool.Begin()
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() { failed <- pool.QueryRow(`select n from counter`).Err() }()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Fatalf("who waits: got %v, want %v", err, ErrClosed)
	}
	if err := tx.Commit(); !errors.Is(err, ErrClosed) {
		t.Fatalf("who has the turn: got %v, want %v", err, ErrClosed)
	}
}
