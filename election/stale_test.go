package election

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
)

// A leader, a process of its own, is frozen after its write and before its guard. Another is
// elected and writes. The first one thaws, is told by its clock that it leads no more, and goes
// on all the same. Its transaction fails by its guard, and also by the statement of the guard
// alone, which asks no clock. Without a guard it is committed, after what the new leader has
// written: that is what a guard is for.
//
// On SQLite, which has one writer, a transaction that has written keeps everybody else from
// writing, and so from being elected: the leader there is frozen right before it begins, and does
// all of it when it has thawed. What befalls one that is frozen after its write is below.
func TestAFrozenLeadersTransactionFails(t *testing.T) {
	for guard, want := range map[string]error{"guard": coordd.ErrLost, "fence": coordd.ErrFenced, "nothing": nil} {
		t.Run("guarded by "+guard, func(t *testing.T) {
			dbtest.Each(t, func(t *testing.T, dsn string) {
				db := withLedger(t, dsn)
				first := start(t, dsn, shortTTL)
				orders := []string{"is it valid"}
				if isSQLite(t, db) {
					orders = append(orders, "write")
				} else {
					first.do("write")
				}
				if guard != "nothing" {
					orders = append(orders, guard)
				}
				first.freeze(db)
				second, err := Campaign(t.Context(), joined(t, db, "second"), Config{Name: "x"})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := db.Exec(t.Context(), `insert into written (term) values (?)`, second.Term()); err != nil {
					t.Fatal(err)
				}

				for _, order := range orders {
					first.order(order)
				}
				first.signal(syscall.SIGCONT)
				if got := first.answer(); got != errNotValid.Error() {
					t.Errorf("thawed, is it valid: got %q, want %q", got, errNotValid)
				}
				if isSQLite(t, db) {
					if got := first.answer(); got != "done" {
						t.Errorf("thawed, write: got %q, want it done", got)
					}
				}
				terms := []int64{1, second.Term()}
				if want == nil {
					first.do("commit")
				} else {
					if got := first.answer(); !strings.Contains(got, want.Error()) {
						t.Errorf("thawed, %s: got %q, want %q", guard, got, want)
					}
					first.do("rollback")
					terms = terms[1:]
				}
				if got := written(t, db); !slices.Equal(got, terms) {
					t.Errorf("committed: got terms %v, want %v", got, terms)
				}
			})
		})
	}
}

// On SQLite nobody is elected while a transaction is open that has written, however dead its
// process seems. So when that transaction goes on it is not stale: it passes its guard, and is
// committed before anybody else leads.
func TestAFrozenWriterKeepsSQLiteToItself(t *testing.T) {
	t.Parallel()
	file := dbtest.SQLiteFile(t)
	db := withLedger(t, file)
	first := start(t, file, shortTTL)
	led, _ := running(t, joined(t, db, "second"), Config{Name: "x"})
	first.do("write")
	first.stop()
	select {
	case l := <-led:
		t.Fatalf("term %d was elected beside an open transaction that had written", l.Term())
	case <-time.After(2 * shortTTL): // it must not be
	}
	first.signal(syscall.SIGCONT)
	first.do("fence")
	first.do("commit")
	first.signal(syscall.SIGKILL)
	second := next(t, led, "the second leads")
	if got := written(t, db); !slices.Equal(got, []int64{1}) || second.Term() <= 1 {
		t.Errorf("got %v committed, and then term %d, want what term 1 has written, and then a later term", got, second.Term())
	}
}

// withLedger is a migrated database with a table in which leaders write their terms.
func withLedger(t *testing.T, dsn string) *coordd.DB {
	t.Helper()
	dbtest.AsAdministrator(t)
	db := dbtest.Migrated(t, dsn)
	if _, err := db.Exec(t.Context(), `create table written (term bigint not null)`); err != nil {
		t.Fatal(err)
	}
	return db
}

// written are the terms under which something was written.
func written(t *testing.T, db *coordd.DB) []int64 {
	t.Helper()
	terms, err := coordd.All(t.Context(), db.Queries, func(n *int64) []any { return []any{n} }, `select term from written order by term`)
	if err != nil {
		t.Fatal(err)
	}
	return terms
}

func isSQLite(t *testing.T, db *coordd.DB) bool {
	t.Helper()
	product, err := db.Product(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return product == "SQLite"
}
