package migrations_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
	"github.com/coordd/coordd/migrations"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestReplicasThatMigrateAtOnceAllSucceed(t *testing.T) {
	dbtest.AsAdministrator(t)
	dbtest.Each(t, func(t *testing.T, dsn string) {
		var replicas sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			db := dbtest.Open(t, dsn)
			replicas.Go(func() { errs[i] = migrations.Up(t.Context(), db) })
		}
		replicas.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		db := dbtest.Open(t, dsn)
		if err := db.CheckSchema(t.Context()); err != nil {
			t.Fatal(err)
		}
		var applied int
		if err := db.Get(t.Context(), []any{&applied}, `select count(*) from coordd_migrations where version_id > 0`); err != nil {
			t.Fatal(err)
		}
		if applied != coordd.SchemaVersion {
			t.Fatalf("migrations recorded: got %d, want %d", applied, coordd.SchemaVersion)
		}
	})
}

// A standby that has the tables, and takes over before anybody has joined, is noticed.
func TestUpAcceptsTheHistory(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		h, err := journal.ReadHistory(t.Context(), db.Queries)
		if err != nil || h.Number() == 0 || h.Quarantined() || !h.Intact() {
			t.Fatalf("got %+v, %v, want the first one, accepted", h, err)
		}
		if _, err := db.Exec(t.Context(), `update coordd_meta set text = 'elsewhere' where name = 'history'`); err != nil {
			t.Fatal(err)
		}
		if h, renewed, err := journal.EnterHistory(t.Context(), db); err != nil || !renewed || !h.Quarantined() {
			t.Fatalf("the first to join elsewhere: got %+v, %v, %v, want a quarantine", h, renewed, err)
		}
	})
}

func TestDownUndoesUp(t *testing.T) {
	dbtest.AsAdministrator(t)
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		for range coordd.SchemaVersion {
			if err := migrations.Down(t.Context(), db); err != nil {
				t.Fatal(err)
			}
		}
		if got := columns(t, db); len(got) != 0 {
			t.Fatalf("columns left: got %v, want none", got)
		}
		if err := db.CheckSchema(t.Context()); !errors.Is(err, coordd.ErrSchema) {
			t.Fatalf("schema after down: got %v, want %v", err, coordd.ErrSchema)
		}
		if err := migrations.Up(t.Context(), db); err != nil {
			t.Fatal(err)
		}
	})
}

// MySQL and MariaDB commit each statement by itself, so a migration that was killed has done a part
// of its work, up to all but the note of it.
func TestAMigrationThatBrokeOffIsRunAgain(t *testing.T) {
	dbtest.AsAdministrator(t)
	t.Parallel()
	db := dbtest.Migrated(t, dbtest.MySQLSchema(t))
	want := columns(t, db)
	for version := coordd.SchemaVersion; version > 0; version-- {
		if _, err := db.Exec(t.Context(), `delete from coordd_migrations where version_id >= ?`, version); err != nil {
			t.Fatal(err)
		}
		if err := migrations.Up(t.Context(), db); err != nil {
			t.Fatalf("%d and all after it: %v", version, err)
		}
		if got := columns(t, db); !slices.Equal(got, want) {
			t.Fatalf("%d and all after it: got %v, want %v", version, got, want)
		}
	}
	for version := coordd.SchemaVersion; version > 0; version-- {
		if err := migrations.Down(t.Context(), db); err != nil {
			t.Fatalf("%d down: %v", version, err)
		}
		if _, err := db.Exec(t.Context(), `insert into coordd_migrations (version_id, is_applied) values (?, true)`, version); err != nil {
			t.Fatal(err)
		}
		if err := migrations.Down(t.Context(), db); err != nil {
			t.Fatalf("%d down again: %v", version, err)
		}
	}
}

func TestSchemasAreTheGoldenOne(t *testing.T) {
	golden := filepath.Join("..", "testdata", "schema.golden")
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		got := strings.Join(columns(t, db), "\n") + "\n"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Fatalf("got:\n%s\nwant (go test ./migrations -update rewrites it):\n%s", got, want)
		}
	})
}

// columns is what the catalogue says of coordd's tables, in words that all databases share.
func columns(t *testing.T, db *coordd.DB) []string {
	t.Helper()
	product, err := db.Product(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	catalogue := map[string]string{
		"PostgreSQL": `select table_name, column_name, data_type, coalesce(character_maximum_length, 0), is_nullable
			from information_schema.columns where table_schema = current_schema()`,
		"SQLite": `select m.name, p.name, p.type, 0, case when p."notnull" = 1 then 'NO' else 'YES' end
			from sqlite_master m, pragma_table_info(m.name) p where m.type = 'table'`,
	}[product]
	if catalogue == "" {
		catalogue = `select table_name, column_name, data_type, coalesce(character_maximum_length, 0), is_nullable
			from information_schema.columns where table_schema = database()`
	}
	type column struct {
		table, name, kind, nullable string
		length                      int
	}
	found, err := coordd.All(t.Context(), db.Queries, func(c *column) []any {
		return []any{&c.table, &c.name, &c.kind, &c.length, &c.nullable}
	}, catalogue)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range found {
		ours := strings.HasPrefix(c.table, "coordd_") && !strings.HasPrefix(c.table, "coordd_migrations") && !strings.HasPrefix(c.table, "coordd_v_")
		if !ours {
			continue
		}
		kind := strings.Replace(strings.ToLower(c.kind), "character varying", "varchar", 1)
		switch {
		case kind == "varchar":
			kind = fmt.Sprintf("varchar(%d)", c.length)
		case strings.HasSuffix(kind, "text"):
			kind = "text"
		}
		lines = append(lines, fmt.Sprintf("%s.%s %s nullable=%s", c.table, c.name, kind, c.nullable))
	}
	slices.Sort(lines)
	return lines
}

func TestTheThreeFoldersHaveTheSameFiles(t *testing.T) {
	names := func(folder string) []string {
		paths, err := fs.Glob(os.DirFS(folder), "*.sql")
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	want := names("postgres")
	if len(want) != coordd.SchemaVersion {
		t.Fatalf("files in postgres: got %d, want %d (coordd.SchemaVersion)", len(want), coordd.SchemaVersion)
	}
	for _, folder := range []string{"mysql", "sqlite"} {
		if got := names(folder); !slices.Equal(got, want) {
			t.Fatalf("%s: got %v, want %v", folder, got, want)
		}
	}
}

func TestOtherSchemasAreRefusedWithTheNextStep(t *testing.T) {
	dbtest.AsAdministrator(t)
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Open(t, dsn)
		refused := func(step string) {
			t.Helper()
			err := db.CheckSchema(t.Context())
			if !errors.Is(err, coordd.ErrSchema) || !strings.Contains(err.Error(), step) {
				t.Fatalf("got %v, want %v with %q", err, coordd.ErrSchema, step)
			}
		}
		refused("coordd migrate up") // none
		if err := migrations.Up(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		change := func(stmt string) {
			t.Helper()
			if _, err := db.Exec(t.Context(), stmt, coordd.SchemaVersion+1); err != nil {
				t.Fatal(err)
			}
		}
		change(`insert into coordd_migrations (version_id, is_applied) values (?, true)`)
		refused("upgrade coordd") // newer
		change(`delete from coordd_migrations where version_id > 0 and version_id <= ?`)
		refused("coordd migrate up") // older
	})
}

func TestScriptDoesWhatUpDoes(t *testing.T) {
	dbtest.AsAdministrator(t)
	dbtest.Each(t, func(t *testing.T, dsn string) {
		_, kind, _ := strings.Cut(t.Name(), "/")
		script, err := migrations.Script(kind)
		if err != nil {
			t.Fatal(err)
		}
		db := dbtest.Open(t, dsn)
		client, err := db.Pool().Conn(t.Context()) // one, as a database's own client has
		if err != nil {
			t.Fatal(err)
		}
		for stmt := range strings.SplitSeq(script, ";\n") {
			if isComment(stmt) {
				continue
			}
			if _, err := client.ExecContext(t.Context(), stmt); err != nil {
				t.Fatalf("%s: %v", stmt, err)
			}
		}
		client.Close()
		if err := db.CheckSchema(t.Context()); err != nil {
			t.Fatal(err)
		}
		status, err := migrations.Status(context.Background(), db)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range status {
			if !m.Applied {
				t.Fatalf("%s: got not applied, want applied", m.Name)
			}
		}
	})
}

func isComment(stmt string) bool {
	for line := range strings.Lines(stmt) {
		if s := strings.TrimSpace(line); s != "" && !strings.HasPrefix(s, "--") {
			return false
		}
	}
	return true
}
