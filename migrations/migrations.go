// Package migrations brings coordd's tables up. There is one folder of SQL files for each
// database, the same file names in each, for the goose command as well:
//
//	goose -dir migrations/postgres -table coordd_migrations postgres "$DSN" up
//	goose -dir migrations/mysql -table coordd_migrations mysql "$DSN?parseTime=true" up
//
// coordd keeps its versions in coordd_migrations, so it stays clear of goose migrations
// of your own in the same database.
package migrations

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

const (
	table     = "coordd_migrations"
	lockTable = "coordd_migrations_lock"
)

//go:embed postgres/*.sql mysql/*.sql sqlite/*.sql
var files embed.FS

// Up brings the tables to the version of this program. Any number of processes may call
// it at once: one migrates and the others wait. It does nothing where there is nothing to
// do.
//
// It also accepts the database's history, which the first member to join does otherwise: a
// standby that takes over in between would be trusted at once.
//
// It needs the privilege to create tables, and two connections of the pool except on
// SQLite.
func Up(ctx context.Context, db *coordd.DB) error {
	p, err := provider(ctx, db)
	if err != nil {
		return fmt.Errorf("migrate up: %w", err)
	}
	if version, err := db.Schema(ctx); err != nil {
		return fmt.Errorf("migrate up: %w", err)
	} else if version >= coordd.SchemaVersion {
		return db.CheckSchema(ctx) // nothing to do, or a newer program's
	}
	for tries := 1; ; tries++ {
		_, err = p.Up(ctx)
		if err == nil {
			break
		}
		// SQLite has no lock for this: the one that came second finds the tables made.
		if pending, unknown := p.HasPending(ctx); unknown == nil && !pending {
			break
		}
		if tries == 3 || ctx.Err() != nil {
			return fmt.Errorf("migrate up: %w", db.Explain(err))
		}
	}
	if _, _, err := journal.EnterHistory(ctx, db); err != nil {
		return fmt.Errorf("migrate up: accept the database's history: %w", err)
	}
	return nil
}

// Down undoes the newest migration, with all that its tables hold. No member may be
// running.
func Down(ctx context.Context, db *coordd.DB) error {
	if version, err := db.Schema(ctx); err != nil {
		return fmt.Errorf("migrate down: %w", err)
	} else if version == 0 || version > coordd.SchemaVersion {
		return db.CheckSchema(ctx)
	}
	p, err := provider(ctx, db)
	if err != nil {
		return fmt.Errorf("migrate down: %w", err)
	}
	if _, err := p.Down(ctx); err != nil {
		return fmt.Errorf("migrate down: %w", db.Explain(err))
	}
	return nil
}

// Migration is one file and whether the database has it.
type Migration struct {
	Version int64  `json:"version"`
	Name    string `json:"name"`
	Applied bool   `json:"applied"`
}

// Status lists the migrations that this program knows, the oldest first. It only reads, so
// it works with few privileges and on a replica.
func Status(ctx context.Context, db *coordd.DB) ([]Migration, error) {
	p, err := provider(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("migrate status: %w", err)
	}
	version, err := db.Schema(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrate status: %w", err)
	}
	var all []Migration
	for _, m := range p.ListSources() {
		all = append(all, Migration{Version: m.Version, Name: m.Path, Applied: m.Version <= version})
	}
	return all, nil
}

func provider(ctx context.Context, db *coordd.DB) (*goose.Provider, error) {
	product, err := db.Product(ctx)
	if err != nil {
		return nil, err
	}
	folder, dialect := folderOf(product)
	sql, err := fs.Sub(files, folder)
	if err != nil {
		return nil, err
	}
	options := []goose.ProviderOption{
		goose.WithTableName(table),
		goose.WithSlog(slog.New(slog.DiscardHandler)),
		goose.WithDisableGlobalRegistry(true), // the application's own Go migrations are none of ours
	}
	if dialect != goose.DialectSQLite3 {
		if err := checkPool(ctx, db, dialect); err != nil {
			return nil, err
		}
		locker, err := lockerOf(db, dialect)
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithLocker(locker))
	}
	return goose.NewProvider(dialect, db.Pool(), sql, options...)
}

// checkPool refuses pools on which goose would wait for ever.
func checkPool(ctx context.Context, db *coordd.DB, dialect goose.Dialect) error {
	if db.Pool().Stats().MaxOpenConnections == 1 {
		return errors.New("the pool is limited to one connection and migrating needs two: raise SetMaxOpenConns")
	}
	if dialect != goose.DialectMySQL {
		return nil
	}
	var now any
	if err := db.Get(ctx, []any{&now}, `select utc_timestamp()`); err != nil {
		return err
	}
	if _, parsed := now.(time.Time); !parsed {
		return errors.New("the pool does not parse times, which goose needs: open it with parseTime=true")
	}
	return nil
}

func folderOf(product string) (folder string, dialect goose.Dialect) {
	switch product {
	case "PostgreSQL":
		return "postgres", goose.DialectPostgres
	case "SQLite":
		return "sqlite", goose.DialectSQLite3
	default:
		return "mysql", goose.DialectMySQL
	}
}

// lockerOf is what keeps replicas that start at once from migrating at once: a row that
// runs out if its holder dies. It works through PgBouncer, where an advisory lock would
// not. Should it ever fail, the slower migration fails, and finds nothing to do when it
// tries again.
func lockerOf(db *coordd.DB, dialect goose.Dialect) (lock.Locker, error) {
	options := []lock.TableLockerOption{
		lock.WithTableName(lockTable),
		lock.WithTableLockTimeout(100*time.Millisecond, 3000),
		lock.WithTableLogger(slog.New(slog.DiscardHandler)),
		lock.WithTableRetryPolicy(func(err error) bool { return !hopeless(db, err) }),
	}
	if dialect == goose.DialectPostgres {
		return lock.NewPostgresTableLocker(options...)
	}
	return lock.NewMySQLTableLocker(options...)
}

// hopeless tells an error that waiting does not mend from goose's "held by another".
func hopeless(db *coordd.DB, err error) bool {
	var known *coordd.Error
	return errors.As(db.Explain(err), &known) && !errors.Is(known, coordd.ErrContended)
}
