package lock_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/lock"
)

// The snippets of docs/guard.md all withdraw 10 from an account, guarded by a right. They are run
// here: while it is held, with somebody who waits to take it over; after that; and, those in
// other languages than Go, after a release.

// The Go of the guide stands in these functions, word for word.

func withdrawInTx(ctx context.Context, held *lock.Held) error {
	err := held.InTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `update accounts set balance = balance - 10 where id = 42`)
		return err
	})
	return err
}

func withdrawGuarded(ctx context.Context, pool *sql.DB, held *lock.Held) error {
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, `update accounts set balance = balance - 10 where id = 42`); err != nil {
		return err
	}
	if err := held.Guard(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

func withdrawFenced(ctx context.Context, conn *pgx.Conn, l *election.Leadership) error {
	if !l.Valid() {
		return coordd.ErrLost
	}
	fence, err := l.Fence(ctx)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `update accounts set balance = balance - 10 where id = 42`); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, fence.Query, fence.Args...)
		if err == nil && tag.RowsAffected() == 0 {
			err = coordd.ErrFenced
		}
		return err
	})
}

// snippets are the blocks of the guide of one kind.
func snippets(t *testing.T, kind string) []string {
	t.Helper()
	return blocks(t, "guard.md", kind)
}

// blocks are those of a page of one kind: what stands behind the backquotes.
func blocks(t *testing.T, page, kind string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)
	for {
		_, after, found := strings.Cut(rest, "```"+kind+"\n")
		if !found {
			break
		}
		block, after, ended := strings.Cut(after, "```\n")
		if !ended {
			t.Fatalf("docs/%s: a block of %s does not end", page, kind)
		}
		all, rest = append(all, block), after
	}
	if len(all) == 0 {
		t.Fatalf("docs/%s has no block of %s", page, kind)
	}
	return all
}

func TestTheGoOfTheGuideIsWhatIsTested(t *testing.T) {
	source, err := os.ReadFile("guide_test.go")
	if err != nil {
		t.Fatal(err)
	}
	all := snippets(t, "go")
	for _, block := range all {
		var indented strings.Builder
		for line := range strings.Lines(block) {
			if line != "\n" {
				indented.WriteByte('\t')
			}
			indented.WriteString(line)
		}
		if !strings.Contains(string(source), indented.String()) {
			t.Errorf("not in this file, so not tested:\n%s", block)
		}
	}
	if len(all) != 3 {
		t.Errorf("got %d blocks, want 3", len(all))
	}
}

// member is one process: a pool and a session of its own.
func member(t *testing.T, dsn, name string) *heartbeat.Session {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), dbtest.Open(t, dsn), heartbeat.Config{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) })
	return s
}

// account makes the table that the snippets write, and returns what reads the balance.
func account(t *testing.T, dsn string) (db *coordd.DB, balance func() int) {
	t.Helper()
	dbtest.AsAdministrator(t)
	db = dbtest.Migrated(t, dsn)
	mustExec(t, db, `create table accounts (id integer primary key, balance integer not null)`)
	mustExec(t, db, `insert into accounts values (42, 100)`)
	return db, func() (n int) {
		t.Helper()
		if err := db.Get(t.Context(), []any{&n}, `select balance from accounts where id = 42`); err != nil {
			t.Fatal(err)
		}
		return n
	}
}

func mustExec(t *testing.T, db *coordd.DB, stmt string) {
	t.Helper()
	if _, err := db.Pool().ExecContext(context.WithoutCancel(t.Context()), stmt); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

func acquired(t *testing.T, s *heartbeat.Session, request lock.Request) *lock.Held {
	t.Helper()
	held, err := lock.Acquire(t.Context(), s, request)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func released(t *testing.T, held *lock.Held) {
	t.Helper()
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// die is what others do to a session that freezes. Its own process does not know it yet.
func die(t *testing.T, db *coordd.DB, s *heartbeat.Session) {
	t.Helper()
	if n, err := db.Exec(t.Context(), `update coordd_heartbeats set state = 'dead' where member_id = ?`, s.ID()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

func TestTheGoOfTheGuide(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		ctx := t.Context()
		db, balance := account(t, dsn)
		a, b := member(t, dsn, "a"), member(t, dsn, "b")
		held := acquired(t, a, lock.Exclusive("x"))
		l, err := election.Campaign(ctx, a, election.Config{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		withdrawals := map[string]func() error{
			"InTx":  func() error { return withdrawInTx(ctx, held) },
			"Guard": func() error { return withdrawGuarded(ctx, db.Pool(), held) },
		}
		if strings.HasPrefix(dsn, "postgres:") {
			conn, err := pgx.Connect(ctx, dsn)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close(context.Background()) })
			withdrawals["Fence"] = func() error { return withdrawFenced(ctx, conn, l) }
		}
		want := 100
		for name, withdraw := range withdrawals {
			if err := withdraw(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			want -= 10
		}
		die(t, db, a)
		defer released(t, acquired(t, b, lock.Exclusive("x")))
		next, err := election.Campaign(ctx, b, election.Config{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		defer next.Resign(ctx)
		for name, withdraw := range withdrawals {
			if err := withdraw(); !errors.Is(err, coordd.ErrFenced) && !errors.Is(err, coordd.ErrLost) {
				t.Errorf("%s, after it was taken over: got %v, want it refused", name, err)
			}
		}
		if got := balance(); got != want {
			t.Errorf("balance: got %d, want %d", got, want)
		}
	})
}

// script is one snippet in SQL, for a lock and a token of the test's own.
func script(t *testing.T, kind, name string, token int64, shared bool) string {
	t.Helper()
	text := snippets(t, kind)[0]
	for _, placeholder := range []string{"nightly-report", "token = 7"} {
		if strings.Count(text, placeholder) != 1 {
			t.Fatalf("docs/guard.md, %s: want %q once", kind, placeholder)
		}
	}
	if shared { // as the guide says
		text = strings.NewReplacer("coordd_leases", "coordd_shared", "where name =", "where lease =", " and holder is not null", "").Replace(text)
	}
	return strings.NewReplacer("nightly-report", name, "token = 7", "token = "+strconv.FormatInt(token, 10)).Replace(text)
}

// play runs a script as a program would: if the guard, the last statement but the commit, finds
// nothing, it rolls back. Before either it does something else.
func play(t *testing.T, pool *sql.DB, script string, before func()) (held bool) {
	t.Helper()
	conn, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	must := func(stmt string) int64 {
		t.Helper()
		result, err := conn.ExecContext(t.Context(), stmt)
		if err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
		changed, _ := result.RowsAffected()
		return changed
	}
	stmts := strings.Split(strings.TrimSuffix(strings.TrimSpace(script), ";"), ";")
	guard, commit := len(stmts)-2, len(stmts)-1
	for _, stmt := range stmts[:guard] {
		must(stmt)
	}
	if stmt := stmts[guard]; strings.HasPrefix(strings.TrimSpace(stmt), "select") {
		var column any
		err := conn.QueryRowContext(t.Context(), stmt).Scan(&column)
		if held = err == nil; !held && !errors.Is(err, sql.ErrNoRows) {
			t.Fatalf("%s: %v", stmt, err)
		}
	} else {
		held = must(stmt) == 1
	}
	before()
	if held {
		must(stmts[commit])
	} else {
		must("rollback")
	}
	return held
}

func TestTheSQLOfTheGuide(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		database, _, _ := strings.Cut(dsn, ":")
		kinds := []string{"sql " + database}
		if database == "mysql" {
			kinds = append(kinds, "sql galera") // needed on a cluster, and right anywhere
		}
		db, balance := account(t, dsn)
		want := 100
		for _, kind := range kinds {
			guards(t, dsn, db, kind, false)
			guards(t, dsn, db, kind, true)
			want -= 20
		}
		if got := balance(); got != want {
			t.Errorf("balance: got %d, want %d", got, want)
		}
	})
}

// guards holds that a script is committed while its right is held, and keeps who takes it over
// waiting until then; and that it is not committed after that, nor after a release.
func guards(t *testing.T, dsn string, db *coordd.DB, kind string, shared bool) {
	t.Helper()
	a, b := member(t, dsn, "a"), member(t, dsn, "b")
	request := func(name string) lock.Request {
		if shared {
			return lock.Shared(name)
		}
		return lock.Exclusive(name)
	}
	name := kind + " " + strconv.FormatBool(shared)
	taken := acquired(t, a, request(name))
	script := script(t, kind, name, taken.Token(), shared)
	die(t, db, a)

	type result struct {
		held *lock.Held
		err  error
	}
	next := make(chan result, 1)
	held := play(t, db.Pool(), script, func() {
		go func() {
			held, err := lock.Acquire(t.Context(), b, lock.Exclusive(name))
			next <- result{held, err}
		}()
		select {
		case r := <-next:
			t.Errorf("%s: it was taken over beside a guarded transaction (%v)", name, r.err)
			next <- r
		case <-time.After(200 * time.Millisecond): // long enough for one that does not wait
		}
	})
	if !held {
		t.Errorf("%s: the guard of who holds it found nothing", name)
	}
	r := <-next
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer released(t, r.held)
	if play(t, db.Pool(), script, func() {}) {
		t.Errorf("%s: the guard of who was taken over from found something", name)
	}
	given := acquired(t, b, request(name+" given back"))
	released(t, given)
	script = strings.NewReplacer(name, name+" given back", strconv.FormatInt(taken.Token(), 10), strconv.FormatInt(given.Token(), 10)).Replace(script)
	if play(t, db.Pool(), script, func() {}) {
		t.Errorf("%s: the guard of who has given it back found something", name)
	}
}

// The grants of the guide are enough for a user who has nothing else of coordd's.
func TestTheGrantsOfTheGuideAreEnough(t *testing.T) {
	for database, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			dsn := schema(t)
			db, balance := account(t, dsn)
			var app string
			name := map[string]string{"postgres": `select 'app_' || current_schema()`, "mysql": `select left(concat('app_', database()), 32)`}
			if err := db.Get(t.Context(), []any{&app}, name[database]); err != nil {
				t.Fatal(err)
			}
			if database == "postgres" {
				mustExec(t, db, `create role `+app+` login password 'app'`)
				mustExec(t, db, `grant usage on schema `+strings.TrimPrefix(app, "app_")+` to `+app)
				t.Cleanup(func() { mustExec(t, db, `drop owned by `+app); mustExec(t, db, `drop role `+app) })
			} else {
				mustExec(t, db, `create user `+app+` identified by 'app'`)
				t.Cleanup(func() { mustExec(t, db, `drop user `+app) })
			}
			mustExec(t, db, `grant select, update on accounts to `+app)
			for _, stmt := range strings.Split(strings.TrimSuffix(strings.TrimSpace(snippets(t, "sql grants")[0]), ";"), ";") {
				mustExec(t, db, strings.ReplaceAll(stmt, "to app", "to "+app))
			}
			u, err := url.Parse(dsn)
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword(app, "app")
			user := dbtest.Open(t, u.String())
			a := member(t, dsn, "a")
			kinds := map[string][]string{"postgres": {"sql postgres"}, "mysql": {"sql mysql", "sql galera"}}
			want := 100
			for _, kind := range kinds[database] {
				for _, shared := range []bool{false, true} {
					request := lock.Exclusive("x")
					if shared {
						request = lock.Shared("x")
					}
					held := acquired(t, a, request)
					if !play(t, user.Pool(), script(t, kind, "x", held.Token(), shared), func() {}) {
						t.Errorf("%s: the guard found nothing", kind)
					}
					released(t, held)
					want -= 10
				}
			}
			if got := balance(); got != want {
				t.Errorf("balance: got %d, want %d", got, want)
			}
		})
	}
}

// python is the snippet's function, called with three arguments: which server, in JSON, name and token.
const python = `
import json, sys
print(withdraw(json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
`

// pythonWith finds a Python that has a module: that of PATH, or the system's own, for which packages install theirs.
func pythonWith(t *testing.T, module string) (interpreter string) {
	t.Helper()
	var failed error
	for _, interpreter := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.CommandContext(t.Context(), interpreter, "-c", "import "+module).CombinedOutput()
		if err == nil {
			return interpreter
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w: %s", interpreter, err, out))
	}
	missing := t.Skipf
	if os.Getenv("CI") != "" {
		missing = t.Fatalf
	}
	missing("no Python here has %s (run scripts/testdeps, or `apt-get install python3-%[1]s`): %v", module, failed)
	return ""
}

func TestThePythonOfTheGuide(t *testing.T) {
	modules := map[string]string{"sqlite": "sqlite3", "postgres": "psycopg", "mysql": "pymysql"}
	dbtest.Each(t, func(t *testing.T, dsn string) {
		database, rest, _ := strings.Cut(dsn, ":")
		module := modules[database]
		interpreter := pythonWith(t, module)
		var server any = rest // a file
		if u, err := url.Parse(dsn); err != nil {
			t.Fatal(err)
		} else if database == "postgres" {
			u.RawQuery = "options=-csearch_path%3D" + u.Query().Get("search_path") // as libpq has it
			server = u.String()
		} else if database == "mysql" {
			port, _ := strconv.Atoi(u.Port())
			password, _ := u.User.Password()
			server = map[string]any{"host": u.Hostname(), "port": port, "user": u.User.Username(), "password": password, "database": u.Path[1:]}
		}
		where, err := json.Marshal(server)
		if err != nil {
			t.Fatal(err)
		}
		_, balance := account(t, dsn)
		held := acquired(t, member(t, dsn, "a"), lock.Exclusive("x"))
		withdraw := func(want string) {
			t.Helper()
			out, err := exec.CommandContext(t.Context(), interpreter, "-c", snippets(t, "python "+module)[0]+python,
				string(where), "lock/x", strconv.FormatInt(held.Token(), 10)).CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != want {
				t.Errorf("got %s (%v), want %s", got, err, want)
			}
		}
		withdraw("True")
		released(t, held)
		withdraw("False")
		if got := balance(); got != 90 {
			t.Errorf("balance: got %d, want 90", got)
		}
	})
}
