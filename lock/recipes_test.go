package lock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/lock"
)

// The Go of docs/recipes/locks.md stands in these functions, word for word.

// nightly makes the report of a day, unless that has been done.
func nightly(ctx context.Context, s *heartbeat.Session, day string) error {
	return lock.Do(ctx, s, lock.Exclusive("nightly-report"), func(ctx context.Context, held *lock.Held) error {
		return held.InTx(ctx, func(tx *sql.Tx) error {
			done, err := tx.ExecContext(ctx, `update last_runs set last_run = ? where job = 'nightly-report' and last_run < ?`, day, day)
			if err != nil {
				return err
			}
			if n, err := done.RowsAffected(); n == 0 || err != nil {
				return err // 0: it has been done
			}
			_, err = tx.ExecContext(ctx, `insert into reports values (?)`, day)
			return err
		})
	})
}

// count counts for as long as this process leads, which it seeks until ctx ends.
func count(ctx context.Context, s *heartbeat.Session) error {
	return election.Run(ctx, s, election.Config{Name: "writer"}, func(ctx context.Context, l *election.Leadership) error {
		for ctx.Err() == nil {
			err := l.InTx(ctx, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, `update counters set value = value + 1 where id = 42`)
				return err
			})
			if err != nil {
				return err // where it leads no more Run makes nothing of that, and campaigns again
			}
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	})
}

const recipes = "recipes/locks.md"

func TestTheGoOfTheRecipesIsWhatIsTested(t *testing.T) {
	source, err := os.ReadFile("recipes_test.go")
	if err != nil {
		t.Fatal(err)
	}
	all := blocks(t, recipes, "go")
	for _, block := range all {
		if !strings.Contains(string(source), block) {
			t.Errorf("not in this file, so not tested:\n%s", block)
		}
	}
	if len(all) != 2 {
		t.Errorf("got %d blocks, want 2", len(all))
	}
}

// A job that two machines run, one after the other, is done once a day.
func ExampleDo_onceADay() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	for _, stmt := range []string{
		`create table reports (day text)`,
		`create table last_runs (job varchar(200) primary key, last_run varchar(32) not null)`,
		`insert into last_runs values ('nightly-report', '')`,
	} {
		if _, err := db.Pool().ExecContext(ctx, stmt); err != nil {
			log.Fatal(err)
		}
	}
	first, late := join(ctx, db, "app-7"), join(ctx, db, "app-8")
	defer first.Leave(ctx)
	defer late.Leave(ctx)
	for _, day := range []string{"2026-11-22", "2026-11-23"} {
		for _, s := range []*heartbeat.Session{first, late} {
			if err := nightly(ctx, s, day); err != nil {
				log.Fatal(err)
			}
			var reports int
			if err := db.Pool().QueryRowContext(ctx, `select count(*) from reports`).Scan(&reports); err != nil {
				log.Fatal(err)
			}
			fmt.Println(day, s.Name(), reports)
		}
	}
	// Output:
	// 2026-11-22 app-7 1
	// 2026-11-22 app-8 1
	// 2026-11-23 app-7 2
	// 2026-11-23 app-8 2
}

// job runs the recipe's transaction for a day, with the guard of guard.md in its place, and says how it has ended.
func job(t *testing.T, pool *sql.DB, database, day string, token int64) string {
	t.Helper()
	guide := strings.Split(strings.TrimSuffix(strings.TrimSpace(snippets(t, "sql "+database)[0]), ";"), ";")
	guard := guide[len(guide)-2]
	text := blocks(t, recipes, "sql job")[0]
	lines := strings.SplitAfter(text, "\n")
	text = ""
	for _, line := range lines {
		if strings.HasPrefix(line, "-- here the guard") {
			line = guard + ";\n"
		}
		stmt, _, _ := strings.Cut(line, " -- ")
		text += stmt
	}
	for _, placeholder := range []string{"2026-11-22", "token = 7", "'lock/nightly-report'"} {
		if !strings.Contains(text, placeholder) {
			t.Fatalf("docs/%s: want %q", recipes, placeholder)
		}
	}
	text = strings.NewReplacer("2026-11-22", day, "token = 7", "token = "+strconv.FormatInt(token, 10)).Replace(text)
	conn, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, stmt := range strings.Split(strings.TrimSuffix(strings.TrimSpace(text), ";"), ";") {
		stmt = strings.TrimSpace(stmt)
		ended := ""
		switch {
		case strings.HasPrefix(stmt, "select"):
			var column any
			if err = conn.QueryRowContext(t.Context(), stmt).Scan(&column); errors.Is(err, sql.ErrNoRows) {
				ended, err = "fenced", nil
			}
		case strings.HasPrefix(stmt, "update"):
			var changed sql.Result
			if changed, err = conn.ExecContext(t.Context(), stmt); err == nil {
				if n, _ := changed.RowsAffected(); n == 0 {
					ended = "done before"
				}
			}
		default:
			_, err = conn.ExecContext(t.Context(), stmt)
		}
		if err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
		if ended != "" {
			if _, err := conn.ExecContext(t.Context(), "rollback"); err != nil {
				t.Fatal(err)
			}
			return ended
		}
	}
	return "done"
}

func TestACronJobIsDoneOnceADay(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.AsAdministrator(t)
		database, _, _ := strings.Cut(dsn, ":")
		db := dbtest.Migrated(t, dsn)
		mustExec(t, db, `create table reports (day varchar(32))`)
		for _, stmt := range strings.Split(strings.TrimSuffix(strings.TrimSpace(blocks(t, recipes, "sql tables")[0]), ";"), ";") {
			mustExec(t, db, stmt)
		}
		a, b := member(t, dsn, "a"), member(t, dsn, "b")
		run := func(what, want, day string, token int64) {
			t.Helper()
			if got := job(t, db.Pool(), database, day, token); got != want {
				t.Errorf("%s: got %s, want %s", what, got, want)
			}
		}
		first := acquired(t, a, lock.Exclusive("nightly-report"))
		run("the first", "done", "2026-11-22", first.Token())
		run("the first, again", "done before", "2026-11-22", first.Token())
		die(t, db, a)
		second := acquired(t, b, lock.Exclusive("nightly-report"))
		defer released(t, second)
		run("the second, whose clock is late", "done before", "2026-11-22", second.Token())
		run("the first, thawed a day later", "fenced", "2026-11-23", first.Token())
		run("the second, a day later", "done", "2026-11-23", second.Token())
		var reports int
		if err := db.Get(t.Context(), []any{&reports}, `select count(*) from reports`); err != nil || reports != 2 {
			t.Errorf("got %d reports (%v), want 2", reports, err)
		}
	})
}

// One of two counts at a time, the other goes on when that one is dead, and who is dead writes nothing.
func TestALeaderWritesUnderAGuard(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.AsAdministrator(t)
		db := dbtest.Migrated(t, dsn)
		mustExec(t, db, `create table counters (id integer primary key, value integer not null)`)
		mustExec(t, db, `insert into counters values (42, 0)`)
		value := func() (n int) {
			t.Helper()
			if err := db.Get(t.Context(), []any{&n}, `select value from counters where id = 42`); err != nil {
				t.Fatal(err)
			}
			return n
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		counts := func(s *heartbeat.Session) <-chan error {
			ended := make(chan error, 1)
			go func() { ended <- count(ctx, s) }()
			return ended
		}
		a, b := member(t, dsn, "a"), member(t, dsn, "b")
		first := counts(a)
		dbtest.Eventually(t, "the first leader's count", func() bool { return value() > 1 })
		second := counts(b)
		die(t, db, a)
		if err := <-first; !errors.Is(err, coordd.ErrLost) && !errors.Is(err, coordd.ErrFenced) {
			t.Errorf("who is dead: got %v, want that it has lost", err)
		}
		before := value()
		dbtest.Eventually(t, "the second leader's count", func() bool { return value() > before+1 })
		cancel()
		if err := <-second; err != nil {
			t.Errorf("who leads when the program ends: %v", err)
		}
	})
}
