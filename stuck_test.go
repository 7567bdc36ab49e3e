package coordd_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
)

// A node of Galera that has lost its cluster refuses to roll back and to commit (1047), and
// keeps both the connection and the transaction on it. What comes next on that connection
// must not become a part of that transaction, nor commit it.
func TestATransactionThatTheServerDoesNotEndTakesItsConnectionAlong(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		for _, refused := range []string{"rollback", "commit"} {
			t.Run(refused, func(t *testing.T) {
				other := dbtest.Migrated(t, dsn)
				db, tap := dbtest.OpenTapped(t, dsn)
				errRefused := errors.New("refused")
				tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
					if stmt == refused {
						return errRefused
					}
					return do()
				})
				post := func(on coordd.Queries, id string) error {
					_, err := on.Exec(t.Context(), `insert into coordd_outbox (id, at_us, topic, subject, action, member_id, data) values (?, 0, '', '', '', '', '')`, id)
					return err
				}
				err := db.Tx(t.Context(), func(tx coordd.Queries) error {
					if err := post(tx, "unfinished "+refused); err != nil || refused == "commit" {
						return err
					}
					return errRefused
				})
				if !errors.Is(err, errRefused) {
					t.Fatalf("got %v, want %v", err, errRefused)
				}
				tap.Disturb(nil)
				if err := post(db.Queries, "next "+refused); err != nil {
					t.Fatal(err)
				}
				var got string
				if err := other.Get(t.Context(), []any{&got}, `select coalesce(max(id), '') from coordd_outbox where id like '%`+refused+`'`); err != nil || got != "next "+refused {
					t.Fatalf("in the database: got %q and %v, want the one that was committed", got, err)
				}
				err = db.Tx(t.Context(), func(tx coordd.Queries) error { return post(tx, "last "+refused) })
				if err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}

func TestATransactionTakesAnotherConnectionWhereAnIdleOneHasBroken(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		if _, err := db.Product(t.Context()); err != nil {
			t.Fatal(err)
		}
		broken := 0
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if stmt == "begin" && broken == 0 {
				broken++
				return driver.ErrBadConn
			}
			return do()
		})
		if err := db.Tx(t.Context(), func(coordd.Queries) error { return nil }); err != nil || broken != 1 {
			t.Fatalf("got %v after %d broken connections, want nil after 1", err, broken)
		}
	})
}

// A process that is frozen in a transaction has rows locked, its own among them, by which others are to
// find it dead. The server ends the transaction, where it can.
func TestATransactionOfAFrozenProcessIsEnded(t *testing.T) {
	for name, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := schema(t)
			other := dbtest.Migrated(t, dsn)
			db := dbtest.Open(t, dsn)
			const touch = `update coordd_meta set value = value where name = 'revision'`
			frozen, err := db.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer frozen.Rollback()
			if _, err := db.On(frozen).Exec(t.Context(), touch); err != nil {
				t.Fatal(err)
			}
			product, err := db.Product(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if product == "MySQL" { // it has no such bound, as docs/guard.md says
				if _, err := other.Exec(t.Context(), touch); err == nil {
					t.Error("another has the row that is locked")
				}
				return
			}
			dbtest.Eventually(t, "the lock", func() bool {
				_, err := other.Exec(t.Context(), touch)
				return err == nil
			})
			if err := frozen.Commit(); err == nil {
				t.Error("it has committed when it thawed")
			}
		})
	}
}

// A process that freezes inside a transaction of coordd's must not keep what that has locked: PostgreSQL ends it, also on
// a user's pool, which sets no bound. Others can only have it set there.
func TestTheServerEndsATransactionInWhichAProcessHasFrozen(t *testing.T) {
	t.Parallel()
	dsn := dbtest.PostgresSchema(t)
	dbtest.Migrated(t, dsn)
	frozen, other := dbtest.OpenPatient(t, dsn), dbtest.OpenPatient(t, dsn)
	const stmt = `update coordd_meta set value = value + 1 where name = 'revision'`
	locked, thawed := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- frozen.Tx(t.Context(), func(tx coordd.Queries) error {
			_, err := tx.Exec(t.Context(), stmt)
			close(locked)
			<-thawed
			return err
		})
	}()
	<-locked
	ctx, cancel := context.WithTimeout(t.Context(), dbtest.Patience)
	defer cancel()
	if _, err := other.Exec(ctx, stmt); err != nil {
		t.Errorf("while it is frozen: got %v, want nil", err)
	}
	close(thawed)
	if err := <-ended; err == nil {
		t.Error("thawed: it has committed, want an error")
	}
}
