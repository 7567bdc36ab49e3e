package coordd_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// meta makes rows that tests change as they like.
func meta(t *testing.T, db *coordd.DB, names ...string) {
	t.Helper()
	dbtest.AsAdministrator(t)
	for _, name := range names {
		if _, err := db.Exec(t.Context(), `insert into coordd_meta (name, value, text) values (?, 0, '')`, name); err != nil {
			t.Fatal(err)
		}
	}
}

func value(t *testing.T, db *coordd.DB, name string) (value int) {
	t.Helper()
	if err := db.Get(t.Context(), []any{&value}, `select value from coordd_meta where name = ?`, name); err != nil {
		t.Fatal(err)
	}
	return value
}

const increment = `update coordd_meta set value = value + 1 where name = ?`

func TestADeadlockedTransactionRunsAgain(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		meta(t, db, "x", "y")
		var runs int
		var mu sync.Mutex
		met := make(chan struct{})
		meet := func() { // both hold their first row, where the database lets two write at once
			mu.Lock()
			runs++
			if runs == 2 {
				close(met)
			}
			mu.Unlock()
			select {
			case <-met:
			case <-time.After(300 * time.Millisecond):
			}
		}
		var both sync.WaitGroup
		errs := make([]error, 2)
		for i, order := range [][]string{{"x", "y"}, {"y", "x"}} {
			both.Go(func() {
				errs[i] = db.Tx(t.Context(), func(tx coordd.Queries) error {
					for _, name := range order {
						if _, err := tx.Exec(t.Context(), increment, name); err != nil {
							return err
						}
						meet()
					}
					return nil
				})
			})
		}
		both.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if x, y := value(t, db, "x"), value(t, db, "y"); x != 2 || y != 2 {
			t.Fatalf("x and y: got %d and %d, want 2 and 2", x, y)
		}
	})
}

func TestAFailedTransactionLeavesNothing(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		meta(t, db, "x")
		enough := errors.New("enough")
		runs := 0
		err := db.Tx(t.Context(), func(tx coordd.Queries) error {
			runs++
			if _, err := tx.Exec(t.Context(), increment, "x"); err != nil {
				return err
			}
			return enough
		})
		if !errors.Is(err, enough) || runs != 1 || value(t, db, "x") != 0 {
			t.Fatalf("got %v after %d runs and x = %d, want %v, 1, 0", err, runs, value(t, db, "x"), enough)
		}
	})
}

func TestACommitThatWasNotAnsweredIsUnknown(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		meta(t, dbtest.Migrated(t, dsn), "x")
		db, tap := dbtest.OpenTapped(t, dsn)
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if err := do(); stmt != "commit" || err != nil {
				return err
			}
			return dbtest.ErrReplyLost
		})
		err := db.Tx(t.Context(), func(tx coordd.Queries) error {
			_, err := tx.Exec(t.Context(), increment, "x")
			return err
		})
		if !errors.Is(err, coordd.ErrUnknownOutcome) || value(t, db, "x") != 1 {
			t.Fatalf("got %v and x = %d, want %v and 1", err, value(t, db, "x"), coordd.ErrUnknownOutcome)
		}
	})
}

// A statement that waits for a row gives up in time, and says for what.
func TestALockedRowIsContended(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		holder, waiter := dbtest.Migrated(t, dsn), dbtest.Open(t, dsn)
		meta(t, holder, "x")
		held, err := holder.Pool().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Rollback()
		if _, err := holder.On(held).Exec(t.Context(), increment, "x"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := waiter.Exec(ctx, increment, "x"); !errors.Is(err, coordd.ErrSlow) && !errors.Is(err, coordd.ErrContended) {
			t.Fatalf("got %v, want %v or %v", err, coordd.ErrSlow, coordd.ErrContended)
		}
	})
}

func TestArgumentsAndResultsPassUnchanged(t *testing.T) {
	dbtest.AsAdministrator(t)
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		big := int64(1)<<53 - 1
		if _, err := db.Exec(t.Context(), `insert into coordd_meta (name, value, text) values (?, ?, '')`, "a? {now}'\\ä", big); err != nil {
			t.Fatal(err)
		}
		type row struct {
			name  string
			value int64
		}
		rows, err := coordd.All(t.Context(), db.Queries, func(r *row) []any { return []any{&r.name, &r.value} },
			`select name, value from coordd_meta where value = ?`, big)
		if err != nil {
			t.Fatal(err)
		}
		if want := []row{{"a? {now}'\\ä", big}}; !slices.Equal(rows, want) {
			t.Fatalf("got %v, want %v", rows, want)
		}
	})
}

func TestNowIsMicrosecondsOfUTC(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		before := time.Now().Add(-time.Minute).UnixMicro()
		var now int64
		if err := db.Get(t.Context(), []any{&now}, `select {now}`); err != nil {
			t.Fatal(err)
		}
		if after := time.Now().Add(time.Minute).UnixMicro(); now < before || now > after {
			t.Fatalf("got %d, want between %d and %d", now, before, after)
		}
	})
}

func TestALaneOutlivesItsConnection(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		meta(t, dbtest.Migrated(t, dsn), "x")
		db, tap := dbtest.OpenTapped(t, dsn)
		lane := db.Lane()
		defer lane.Close()
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		if _, err := lane.Exec(t.Context(), increment, "x"); !errors.Is(err, coordd.ErrUnreachable) {
			t.Fatalf("got %v, want %v", err, coordd.ErrUnreachable)
		}
		tap.Disturb(nil)
		if changed, err := lane.Exec(t.Context(), increment, "x"); err != nil || changed != 1 {
			t.Fatalf("got %d rows and %v, want 1", changed, err)
		}
		lane.Close()
		if open := db.Pool().Stats().InUse; open != 0 {
			t.Fatalf("connections in use after Close: got %d, want 0", open)
		}
	})
}

// A transaction that holds the only connection need not wait for those who wait for it.
func TestThePoolIsNotAskedOnATransaction(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db := dbtest.Open(t, dsn)
		db.Pool().SetMaxOpenConns(1)
		tx, err := db.Pool().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		var waiting sync.WaitGroup
		defer waiting.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		waiting.Go(func() { db.Schema(ctx) })
		deadline := time.Now().Add(dbtest.Patience)
		for db.Pool().Stats().WaitCount == 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		var one int
		if err := db.On(tx).Get(t.Context(), []any{&one}, `select 1`); err != nil {
			t.Fatal(err)
		}
	})
}
