package lock

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/lease"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func joined(t *testing.T, db *coordd.DB, name string) *heartbeat.Session {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: name, TTL: 15 * time.Second, Beat: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) })
	return s
}

func TestSeveralAreHadTogetherOrNot(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		a, b := joined(t, db, "a"), joined(t, db, "b")
		held, err := Acquire(ctx, a, Shared("z"), Exclusive("b"), Semaphore("c", 3))
		if err != nil {
			t.Fatal(err)
		}
		if !held.Valid() || held.TokenOf("z") != 1 || held.Token() != 1 || held.TokenOf("b") != 1 || held.TokenOf("nothing") != 0 {
			t.Fatalf("got valid %v, tokens %d %d", held.Valid(), held.TokenOf("z"), held.TokenOf("b"))
		}
		_, err = Try(ctx, b, Exclusive("a"), Exclusive("b"))
		if e := new(HeldError); !errors.As(err, &e) || e.Holder != a.ID() {
			t.Fatalf("got %v, want held by %s", err, a.ID())
		}
		if info, err := Inspect(ctx, db, "a"); err != nil || len(info.Holders) != 0 {
			t.Fatalf("after a try that failed: got %+v, %v, want nobody", info, err)
		}
		if err := held.Release(ctx); err != nil {
			t.Fatal(err)
		}
		all, err := List(ctx, db)
		if err != nil || len(all) != 4 || all[0].Name != "a" {
			t.Fatalf("got %+v, %v", all, err)
		}
	})
}

func TestWhatCannotBeAskedFor(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a := joined(t, db, "a")
		for what, requests := range map[string][]Request{
			"nothing": {}, "no permits": {Semaphore("x", 0)}, "a bad name": {Exclusive(" x")}, "twice": {Exclusive("x"), Shared("x")},
		} {
			if _, err := Acquire(t.Context(), a, requests...); !errors.Is(err, coordd.ErrInvalid) {
				t.Errorf("%s: got %v, want %v", what, err, coordd.ErrInvalid)
			}
		}
	})
}

// The transaction of one who was taken over from fails; that of one who was not does not.
func TestAStaleTransactionIsFencedOff(t *testing.T) {
	dbtest.AsAdministrator(t) // for a table of the caller's own
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		if _, err := db.Exec(ctx, `create table written (who varchar(20))`); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Exec(context.Background(), `drop table written`) })
		b := joined(t, db, "b")
		for _, request := range []Request{Exclusive("x"), Shared("y")} {
			a := joined(t, db, "a")
			old, err := Acquire(ctx, a, request)
			if err != nil {
				t.Fatal(err)
			}
			write := func(tx *sql.Tx) error {
				_, err := db.On(tx).Exec(ctx, `insert into written (who) values ('a')`)
				return err
			}
			if err := old.InTx(ctx, write); err != nil {
				t.Fatal(err)
			}
			// The session believes that it lives, as a frozen one does, and is dead.
			if n, err := db.Exec(ctx, `update coordd_heartbeats set state = 'dead' where member_id = ?`, a.ID()); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			fresh, err := Acquire(ctx, b, Exclusive(request.name))
			if err != nil {
				t.Fatal(err)
			}
			tx, err := db.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range old.held {
				if fence, err := one.Fence(ctx); err != nil || fence.Token != one.Token() {
					t.Fatalf("got %+v, %v", fence, err)
				} else if err := tx.QueryRowContext(ctx, fence.Query, fence.Args...).Scan(new(any)); !errors.Is(err, sql.ErrNoRows) {
					t.Fatalf("the stale fence: got %v, want %v", err, sql.ErrNoRows)
				}
			}
			tx.Rollback()
			if err := fresh.InTx(ctx, write); err != nil {
				t.Fatal(err)
			}
			if err := fresh.Release(ctx); err != nil {
				t.Fatal(err)
			}
		}
		var n int
		if err := db.Get(ctx, []any{&n}, `select count(*) from written`); err != nil || n != 4 {
			t.Fatalf("got %d rows, %v, want 4", n, err)
		}
	})
}

func TestALockForATransaction(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		for _, round := range []string{"before its row is there", "after"} {
			first, err := db.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := Tx(ctx, db, first, "account-42"); err != nil {
				t.Fatal(err)
			}
			got := make(chan error, 1)
			var ended bool
			go func() {
				got <- db.Tx(ctx, func(tx coordd.Queries) error { // again if the server gives up waiting
					return lease.Lock(ctx, tx, "tx/account-42")
				})
			}()
			select {
			case err := <-got:
				t.Fatalf("%s: the second had it beside the first (%v)", round, err)
			case <-time.After(200 * time.Millisecond): // it must not have it
			}
			ended = first.Commit() == nil
			if err := <-got; err != nil || !ended {
				t.Fatalf("%s: %v", round, err)
			}
		}
	})
}

// Two lock names that have no rows yet, in transactions as a user begins them, whose first
// statements come before either's second.
func TestTransactionsLockNewNamesSideBySide(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		for _, keys := range [][2]string{{"x", "y"}, {"the same", "the same"}} {
			var begun atomic.Int32
			both := make(chan struct{})
			tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
				err := do()
				if strings.Contains(stmt, "coordd_leases") {
					if begun.Add(1) == 2 {
						close(both)
					}
					select {
					case <-both:
					case <-time.After(300 * time.Millisecond): // the other waits for this transaction
					}
				}
				return err
			})
			locked := make(chan error, 2)
			for _, key := range keys {
				go func() {
					tx, err := db.Pool().BeginTx(t.Context(), nil)
					if err == nil {
						defer tx.Rollback()
						err = Tx(t.Context(), db, tx, key)
					}
					if err == nil {
						err = tx.Commit()
					}
					locked <- err
				}()
			}
			for range keys {
				if err := <-locked; err != nil {
					t.Errorf("%q: %v", keys, err)
				}
			}
			tap.Disturb(nil)
		}
	})
}

// A row that is removed as idle between the statements of Tx is made again.
func TestALockForATransactionIsHadThoughItsRowIsRemoved(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		other := dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		tx, err := db.Pool().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		var struck atomic.Bool
		tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
			if !strings.Contains(stmt, "insert into coordd_leases") || struck.Swap(true) {
				return do()
			}
			// Where this transaction keeps others out of the row they fail, as they should.
			ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			_ = other.Tx(ctx, func(tx coordd.Queries) error { return lease.Lock(ctx, tx, "tx/x") })
			err := do()
			_, _ = lease.Tidy(ctx, other, 0)
			return err
		})
		if err := Tx(t.Context(), db, tx, "x"); err != nil || !struck.Load() {
			t.Fatalf("got %v, struck %v", err, struck.Load())
		}
		var rows int
		if err := db.On(tx).Get(t.Context(), []any{&rows}, `select count(*) from coordd_leases where name = 'tx/x'`); err != nil || rows != 1 {
			t.Fatalf("got %d rows that it locks, %v, want 1", rows, err)
		}
	})
}

func TestDoReleases(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a := joined(t, db, "a")
		failed := errors.New("failed")
		for _, want := range []error{nil, failed} {
			err := Do(t.Context(), a, Exclusive("x"), func(ctx context.Context, h *Held) error {
				if !h.Valid() || ctx.Err() != nil {
					t.Error("not held")
				}
				return want
			})
			if !errors.Is(err, want) {
				t.Fatalf("got %v, want %v", err, want)
			}
		}
		if info, err := Inspect(t.Context(), db, "x"); err != nil || len(info.Holders) != 0 || info.Token != 2 {
			t.Fatalf("got %+v, %v", info, err)
		}
	})
}
