package coordd_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/coordd/coordd"
)

// Without the WAL journal SQLite refuses to commit while others read, and leaves the transaction
// open: its driver rolls it back.
func TestACommitThatSQLiteRefusesIsRolledBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "coordd.db")
	open := func() *sql.DB {
		pool, err := sql.Open("sqlite", "file:"+file+"?_txlock=immediate&_pragma=journal_mode(delete)")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pool.Close() })
		pool.SetMaxOpenConns(1)
		return pool
	}
	reads, writes := open(), open()
	db := coordd.SQLite(writes)
	if _, err := writes.ExecContext(t.Context(), `create table t (n integer)`); err != nil {
		t.Fatal(err)
	}
	insert := func(n int) error {
		return db.InTx(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), `insert into t (n) values (?)`, n)
			return err
		})
	}
	if err := insert(1); err != nil {
		t.Fatal(err)
	}
	func() {
		rows, err := reads.QueryContext(t.Context(), `select n from t`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		if !rows.Next() {
			t.Fatalf("got %v, want a reader in the middle of its rows", rows.Err())
		}
		if err := insert(2); !errors.Is(err, coordd.ErrContended) {
			t.Fatalf("got %v, want %v", err, coordd.ErrContended)
		}
	}()
	if err := insert(3); err != nil {
		t.Fatal(err)
	}
	var sum int
	if err := reads.QueryRowContext(t.Context(), `select sum(n) from t`).Scan(&sum); err != nil || sum != 4 {
		t.Fatalf("got %d and %v, want the two that were committed", sum, err)
	}
}
