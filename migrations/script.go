package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// Products are the names that Script takes.
var Products = []string{"postgres", "mysql", "sqlite"}

// Script is what Up would do to an empty database, as SQL to be read, reviewed and run by
// hand; product is one of Products. It keeps goose's table of versions too, so a database
// made by it is one that Up has been run on.
func Script(product string) (string, error) {
	dialect, known := map[string]goose.Dialect{
		"postgres": goose.DialectPostgres, "mysql": goose.DialectMySQL, "sqlite": goose.DialectSQLite3,
	}[product]
	if !known {
		return "", fmt.Errorf("say for which database: %s", strings.Join(Products, ", "))
	}
	versions, err := versionTable(dialect)
	if err != nil {
		return "", err
	}
	paths, err := fs.Glob(files, product+"/*.sql") // in the order of their numbers
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s;\n%s", versions, applied(0))
	for _, path := range paths {
		text, err := fs.ReadFile(files, path)
		if err != nil {
			return "", err
		}
		version, err := goose.NumericComponent(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n-- %s\n%s\n\n%s", path, up(string(text)), applied(version))
	}
	return b.String(), nil
}

// applied records a migration as goose does.
func applied(version int64) string {
	return fmt.Sprintf("insert into %s (version_id, is_applied) values (%d, true);\n", table, version)
}

// up is the part of a migration between goose's two marks.
func up(text string) string {
	_, text, _ = strings.Cut(text, "-- +goose Up\n")
	text, _, _ = strings.Cut(text, "-- +goose Down")
	return strings.TrimSpace(text)
}

// versionTable is goose's own statement for its table of versions.
func versionTable(dialect goose.Dialect) (string, error) {
	store, err := database.NewStore(dialect, table)
	if err != nil {
		return "", err
	}
	var r recorder
	if err := store.CreateVersionTable(context.Background(), &r); err != nil {
		return "", err
	}
	return r.statement, nil
}

// recorder takes down the statement that it is given instead of running it.
type recorder struct {
	database.DBTxConn
	statement string
}

func (r *recorder) ExecContext(_ context.Context, statement string, _ ...any) (sql.Result, error) {
	r.statement = statement
	return nil, nil
}
