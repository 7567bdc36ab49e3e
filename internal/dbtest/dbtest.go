// Package dbtest runs the same test on every database that coordd knows.
//
// A test is given a migrated database of its own: a schema, a database or a file. The servers
// are shared by the tests of one package and ended with them.
package dbtest

import (
	"context"
	"database/sql/driver"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dsn"
	"github.com/coordd/coordd/migrations"
)

// Run runs a test on PostgreSQL, MySQL or MariaDB, and SQLite, in parallel, each in a
// migrated schema of its own.
func Run(t *testing.T, test func(t *testing.T, db *coordd.DB)) {
	t.Helper()
	Each(t, func(t *testing.T, dsn string) { test(t, Migrated(t, dsn)) })
}

// Each runs a test on every database, each in an empty schema of its own. With the DSN a
// test can start processes, or open more pools.
func Each(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Helper()
	t.Parallel()
	EachAlone(t, test)
}

// EachAlone is Each for a test that holds what happens against the clock, or that loads the
// machine: the package's other tests wait until it is done.
func EachAlone(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Helper()
	for name, schema := range map[string]func(testing.TB) string{
		"postgres": PostgresSchema, "mysql": MySQLSchema, "sqlite": SQLiteFile,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, schema(t))
		})
	}
}

// bound ends a statement of a test that waits for others.
const bound = 5 * time.Second

// Open opens a pool that is closed with the test.
func Open(t testing.TB, s string) *coordd.DB {
	t.Helper()
	return open(t, s, bound, nil)
}

// OpenPatient is Open for a user who takes his time: the server ends none of his statements and
// transactions for as long as a test lasts.
func OpenPatient(t testing.TB, s string) *coordd.DB {
	t.Helper()
	return open(t, s, time.Hour, nil)
}

func open(t testing.TB, s string, bound time.Duration, tap *Tap) *coordd.DB {
	t.Helper()
	target, err := dsn.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	if tap != nil {
		target.Wrap = func(c driver.Connector) driver.Connector { return tapConnector{c, tap} }
	}
	db, err := target.Open(t.Context(), bound)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Pool().Close() })
	return db
}

// Migrated opens a pool on a schema and brings its tables up.
func Migrated(t testing.TB, dsn string) *coordd.DB {
	t.Helper()
	admin := administrators(t, dsn)
	db := Open(t, admin)
	if err := migrations.Up(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if admin == dsn {
		return db
	}
	granted(t, admin, dsn)
	return Open(t, dsn)
}

// PostgresSchema makes a schema on the shared PostgreSQL and returns its DSN.
func PostgresSchema(t testing.TB) string {
	t.Helper()
	admin, name := Postgres(t), unique()
	create(t, admin, `create schema `+name, `drop schema `+name+` cascade`)
	dsn := with(t, admin, func(u *url.URL) {
		query := u.Query()
		query.Set("search_path", name)
		u.RawQuery = query.Encode()
	})
	if leastPrivileges() {
		return poorPostgres(t, admin, dsn, name)
	}
	return dsn
}

// MySQLSchema makes a database on the shared MySQL or MariaDB and returns its DSN.
func MySQLSchema(t testing.TB) string {
	t.Helper()
	admin, name := MySQL(t), unique()
	create(t, admin, `create database `+name, `drop database `+name)
	dsn := with(t, admin, func(u *url.URL) { u.Path = "/" + name })
	if leastPrivileges() {
		return poorMySQL(t, admin, dsn, name)
	}
	return dsn
}

// SQLiteFile returns the DSN of a file that does not exist yet.
func SQLiteFile(t testing.TB) string {
	return "sqlite:" + filepath.Join(t.TempDir(), "coordd.db")
}

// create runs a statement as administrator, and another when the test has ended.
func create(t testing.TB, admin, do, undo string) {
	t.Helper()
	administer(t.Context(), t, admin, do)
	t.Cleanup(func() { administer(context.WithoutCancel(t.Context()), t, admin, undo) })
}

func administer(ctx context.Context, t testing.TB, admin string, stmts ...string) {
	t.Helper()
	target, err := dsn.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	db, err := target.Open(ctx, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Pool().Close()
	for _, stmt := range stmts {
		if _, err := db.Pool().ExecContext(ctx, stmt); err != nil {
			t.Errorf("%s: %v", stmt, err)
		}
	}
}

func with(t testing.TB, admin string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

// Runs is how often a test repeats what it would do n times: a tenth of that under the race
// detector, which makes everything so much slower.
func Runs(n int) int { return max(1, n/slowdown) }

// Stretch is a time that a machine must keep to, such as a TTL: three times as long under the
// race detector.
func Stretch(d time.Duration) time.Duration { return d * stretch }

// Racing says whether the race detector watches.
func Racing() bool { return slowdown > 1 }

// unique is a name that no other test run uses on a server that several share.
func unique() string {
	return "coordd_" + strings.ReplaceAll(uuid.NewString(), "-", "")
}
