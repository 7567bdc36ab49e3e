package migrations_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/migrations"
)

// Whoever adds a table or a view says what is to be granted on it.
func TestEveryTableIsGranted(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		tables := relations(t, db)
		for _, need := range migrations.Needs() {
			if !tables[need.Table] {
				t.Errorf("%s: got a grant on it, and there is no such table", need.Table)
			}
			delete(tables, need.Table)
		}
		for table := range tables {
			t.Errorf("%s: got no grant on it", table)
		}
	})
}

// relations are all tables and views but the one that only migrating uses.
func relations(t *testing.T, db *coordd.DB) map[string]bool {
	t.Helper()
	product, err := db.Product(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	catalogue := map[string]string{
		"PostgreSQL": `select table_name from information_schema.tables where table_schema = current_schema()`,
		"SQLite":     `select name from sqlite_master where type in ('table', 'view') and name not like 'sqlite_%'`,
	}[product]
	if catalogue == "" {
		catalogue = `select table_name from information_schema.tables where table_schema = database()`
	}
	names, err := coordd.All(t.Context(), db.Queries, func(name *string) []any { return []any{name} }, catalogue)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, name := range names {
		all[name] = true
	}
	delete(all, "coordd_migrations_lock")
	return all
}

// What is granted is what statements do. That it is enough is shown by COORDD_TEST_GRANTS.
func TestNothingIsGrantedThatNoStatementDoes(t *testing.T) {
	statement := regexp.MustCompile(`\b(insert|update|delete)(?: into| from)?\s+(coordd_\w+)`)
	done := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, found := range statement.FindAllStringSubmatch(string(source), -1) {
			done[found[1]+" on "+found[2]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, need := range migrations.Needs() {
		for _, privilege := range need.Privileges {
			granted := privilege + " on " + need.Table
			if privilege != "select" && !done[granted] {
				t.Errorf("%s: got it granted, and no statement does it", granted)
			}
			delete(done, granted)
		}
	}
	for what := range done {
		t.Errorf("%s: got a statement that does it, and no grant", what)
	}
}

func TestUsersAreQuotedWhereTheyMustBe(t *testing.T) {
	for _, test := range []struct{ product, user, want string }{
		{"postgres", "coordd", ` to coordd;`},
		{"postgres", `My "App"`, ` to "My ""App""";`},
		{"mysql", "coordd", ` to coordd;`},
		{"mysql", "app@10.0.0.%", ` to 'app'@'10.0.0.%';`},
		{"mysql", `o'neil\`, ` to 'o''neil\\'@'%';`},
	} {
		script, err := migrations.Grants(test.product, test.user)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(script) {
			if !strings.HasPrefix(line, "grant select") || !strings.HasSuffix(line, test.want+"\n") {
				t.Errorf("%s, %s: got %q, want it to end with %q", test.product, test.user, line, test.want)
			}
		}
	}
	for _, product := range []string{"sqlite", "oracle"} {
		if got, err := migrations.Grants(product, "coordd"); err == nil {
			t.Errorf("%s: got %q, want an error", product, got)
		}
	}
}
