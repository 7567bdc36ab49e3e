package main

import (
	"bytes"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// canary is a password that must appear in no output.
const canary = "hunter2-canary"

// run executes a command line in this process.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), args, &out, &errs)
	if both := out.String() + errs.String(); strings.Contains(both, canary) || strings.Contains(both, url.QueryEscape(canary)) {
		t.Fatalf("coordd %v shows a password:\n%s", args, both)
	}
	return code, out.String(), errs.String()
}

// refused wants an exit code, an error of one line on stderr that says want, and no data.
func refused(t *testing.T, code int, want string, args ...string) {
	t.Helper()
	gotCode, stdout, stderr := run(t, args...)
	if gotCode != code || !strings.Contains(stderr, want) || stdout != "" {
		t.Errorf("coordd %v: got code %d, stdout %q, stderr %q; want code %d and %q", args, gotCode, stdout, stderr, code, want)
	}
	if !strings.HasPrefix(stderr, "coordd: ") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("coordd %v: got stderr %q, want one line that begins with coordd:", args, stderr)
	}
}

func TestBadCommandLinesAreRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("COORDD_DSN", "")
	for _, test := range []struct {
		want string
		args string
	}{
		{"did you mean `coordd members`?", "member"},
		{"there is no such command", canary},
		{"there is no flag --nam", "run --nam=" + canary},
		{"there is no such flag", "members -dsn=postgres://u:" + canary + "@db/x"},
		{"there is no such output format", "members -o " + canary},
		{"say for which database", "migrate sql " + canary},
		{"what was given for --dev is no bool", "run --dev=" + canary},
		{"takes no argument, and 1 were given", "members " + canary},
		{"there is no such output format", "members -o xml"},
		{"an @ that does not stand before its host", "members --dsn postgres://app:p@" + canary + "@localhost/app"},
		{"pgx does not take the DSN", "members --dsn postgres://app@localhost/app?sslmode=" + canary},
		{"there is no file coordd.db here", "members"},
		{"there is no file missing.db here", "members --dsn sqlite:missing.db"},
		{"cannot tell which database", "members --dsn oracle://x"},
		{"cannot tell which database", "members --dsn host=db_password=" + canary},
		{"percent-encode", "members --dsn postgres://u:" + canary + "%zz@db/x"},
		{"percent-encode", "members --dsn postgres://u:/" + canary + "@db/x"},
		{"percent-encode", "members --dsn postgres://u:1?" + canary + "@db/x"},
		{"percent-encode", "members --dsn postgres://u:1#" + canary + "@db/x"},
		{"percent-encode", "members --dsn mysql://u:" + canary + "@[::1/x"},
		{"check its parameters", "members --dsn mysql://u:" + canary + "@db/x?loc=Nowhere/Never"},
		{"check its parameters", "members --dsn mysql://u@db/x?tls=" + canary},
		{"check its parameters", "members --dsn mysql://u@db/x?parseTime=" + canary},
		{"belong before the @", "members --dsn mysql://u@db/x?password=" + canary},
		{"belong before the @", "members --dsn u@tcp(db:3306)/x?password=" + canary},
		{"is missing its @", "members --dsn app:" + canary + "tcp(db:3306)/x"},
		{"is missing its @", "members --dsn app:" + canary + "(db:3306)/x"},
		{"names no file", "members --dsn sqlite:"},
		{"seen by no other process", "members --dsn sqlite::memory:"},
		{"leave out what follows the question mark", "members --dsn sqlite:x.db?mode=ro"},
		{"it begins or ends with space", "run --name _x"},
		{"raise the TTL", "run --ttl 1s"},
		{"positive", "run --ttl -1s"},
		{"whole milliseconds", "run --ttl 6000500us"},
		{"leave out --name", "run --dev --name x"},
		{"loopback only", "run --listen 0.0.0.0:7400"},
		{"is host:port", "run --listen " + canary},
		{"what was given for --label is no", "run --label zone"},
		{"coordd/weight", "run --label coordd/weight=0"},
		{"coordd/weight", "run --dev --label coordd/weight=2x"},
		{"there is no state", "members --state alive,alvie"},
		{"there is no state", "members --state alvie --addr 127.0.0.1:1"},
		{"between 0s and 1m", "resign x --within 61s"},
		{"between 0s and 1m", "transfer x y --within -1s"},
		{"between 0s and 1m", "locks release x --force --reason y --within 2m --addr 127.0.0.1:1"},
		{"leave out --ttl", "doctor --ttl 7s --addr 127.0.0.1:1"},
		{"leave out --addr", "config check --addr 127.0.0.1:1"},
		{"say --yes", "migrate down"},
		{"say for which database", "migrate sql"},
		{"say for which database", "migrate sql oracle"},
	} {
		args := strings.Split(test.args, " ")
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "_", " ") // a space inside an argument
		}
		refused(t, exitUsage, test.want, args...)
	}
}

func TestUnreachableDatabasesAreSaid(t *testing.T) {
	for want, dsn := range map[string]string{
		"postgres://app@127.0.0.1:1/x: the database cannot be reached": "postgres://app:" + canary + "@127.0.0.1:1/x",
		"mysql://app@127.0.0.1:1/x: the database cannot be reached":    "mysql://app:" + canary + "@127.0.0.1:1/x",
		"check the host and port":                                      "app:" + canary + "@tcp(127.0.0.1:1)/x",
		"connect: connection refused":                                  "postgres://app@127.0.0.1:1/x?password=" + canary,
		"no-such-host.invalid":                                         "postgres://app:" + canary + "@no-such-host.invalid/x",
		"or its directory exists, and that this user may write":        "sqlite:/no/such/directory/x.db",
		"/no/such/directory/y.db: the database cannot":                 "sqlite:///no/such/directory/y.db",
	} {
		refused(t, exitDatabase, want, "run", "--listen", "off", "--dsn", dsn)
	}
}

// with changes a DSN's URL.
func with(t *testing.T, dsn string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

func TestServersThatRefuseAreSaid(t *testing.T) {
	dbtest.AsAdministrator(t)
	for name, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := schema(t)
			wrong := with(t, dsn, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), canary) })
			refused(t, exitDatabase, "refused the user or password", "members", "--dsn", wrong)
			refused(t, exitDatabase, "refused the user or password", "run", "--listen", "off", "--dsn", wrong)
			absent := with(t, dsn, func(u *url.URL) { u.Path = "/no_such_database" })
			refused(t, exitDatabase, "create the database first", "members", "--dsn", absent)
			refused(t, exitSchema, "run `coordd migrate up`", "members", "--dsn", dsn)
			refused(t, exitSchema, "run `coordd migrate up`", "run", "--listen", "off", "--dsn", dsn)
		})
	}
}

func TestAReadOnlyServerIsSaid(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		dsn := dbtest.PostgresSchema(t)
		dbtest.Migrated(t, dsn)
		standby := with(t, dsn, func(u *url.URL) {
			u.RawQuery += "&default_transaction_read_only=on" // as a hot standby has it, with the same SQLSTATE
		})
		refused(t, exitDatabase, "connect to the primary", "run", "--listen", "off", "--dsn", standby)
	})
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		server := dbtest.StartMySQL(t, dbtest.Extra{})
		admin := dbtest.Open(t, server.DSN())
		for _, stmt := range []string{
			`create database app`, `create user app@'%' identified by '` + canary + `'`, `grant all on app.* to app@'%'`,
		} {
			if _, err := admin.Pool().ExecContext(t.Context(), stmt); err != nil {
				t.Fatal(err)
			}
		}
		dsn := with(t, server.DSN(), func(u *url.URL) { u.Path, u.User = "/app", url.UserPassword("app", canary) })
		dbtest.Migrated(t, dsn)
		if _, err := admin.Pool().ExecContext(t.Context(), `set global read_only = 1`); err != nil {
			t.Fatal(err)
		}
		refused(t, exitDatabase, "connect to the primary", "run", "--listen", "off", "--dsn", dsn)
		if code, stdout, stderr := run(t, "members", "--dsn", dsn); code != exitOK || !strings.Contains(stdout, "NAME") {
			t.Fatalf("members of a replica: got code %d, %q and %q, want a table", code, stdout, stderr)
		}
	})
}

// grants are the statements that the README has for a database.
func grants(t *testing.T, database string) []string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(readme), "```sql "+database+"\n")
	block, _, ended := strings.Cut(block, "```")
	if !found || !ended {
		t.Fatalf("the README has no grants for %s", database)
	}
	return strings.Split(strings.TrimSuffix(strings.TrimSpace(block), ";"), ";")
}

func TestTheGrantsOfTheReadmeAreEnoughAndNeeded(t *testing.T) {
	dbtest.AsAdministrator(t)
	for name, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := schema(t)
			admin := dbtest.Migrated(t, dsn).Pool()
			user := poorUser(t, admin, name)
			poor := with(t, dsn, func(u *url.URL) { u.User = url.UserPassword(user, canary) })
			refused(t, exitDatabase, "README has the statements", "run", "--listen", "off", "--dsn", poor)
			for _, stmt := range grants(t, name) {
				mustExec(t, admin, strings.ReplaceAll(stmt, "to coordd", "to "+user))
			}
			db := dbtest.Open(t, poor)
			s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: "poor"})
			if err != nil {
				t.Fatal(err)
			}
			takesTurns(t, db, s)
			if err := s.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			if code, _, stderr := run(t, "members", "--dsn", poor); code != exitOK {
				t.Fatalf("members: got code %d and %s, want %d", code, stderr, exitOK)
			}
		})
	}
}

// poorUser makes a user that may connect and no more.
func poorUser(t *testing.T, admin *sql.DB, database string) string {
	t.Helper()
	var user string
	if database == "postgres" {
		if err := admin.QueryRowContext(t.Context(), `select 'poor_' || current_schema()`).Scan(&user); err != nil {
			t.Fatal(err)
		}
		mustExec(t, admin, `create role `+user+` login password '`+canary+`'`)
		mustExec(t, admin, `grant usage on schema `+strings.TrimPrefix(user, "poor_")+` to `+user)
		t.Cleanup(func() { mustExec(t, admin, `drop owned by `+user); mustExec(t, admin, `drop role `+user) })
		return user
	}
	if err := admin.QueryRowContext(t.Context(), `select left(concat('poor_', database()), 32)`).Scan(&user); err != nil {
		t.Fatal(err)
	}
	mustExec(t, admin, `create user `+user+` identified by '`+canary+`'`)
	t.Cleanup(func() { mustExec(t, admin, `drop user `+user) })
	return user
}

func mustExec(t *testing.T, db *sql.DB, stmt string) {
	t.Helper()
	if _, err := db.Exec(stmt); err != nil {
		t.Errorf("%s: %v", stmt, err)
	}
}
