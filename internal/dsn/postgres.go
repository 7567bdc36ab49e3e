package dsn

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dialect"
)

// openPostgres opens a pool that works through PgBouncer in transaction mode too: no named
// prepared statements, and no startup parameters where they are refused.
func (t *Target) openPostgres(ctx context.Context, bound time.Duration) (*coordd.DB, error) {
	cfg := t.postgres.Copy()
	cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "coordd"
	}
	plain := cfg.Copy()
	maps.Copy(cfg.RuntimeParams, dialect.Postgres.Bounds(bound))
	db, err := t.pool(ctx, stdlib.GetConnector(*cfg), coordd.Postgres)
	if refusesParameters(err) {
		return t.pool(ctx, stdlib.GetConnector(*plain), coordd.Postgres)
	}
	return db, err
}

// Postgres says how to connect to a PostgreSQL without its pool, as [pgx.ConnectConfig] takes it,
// and is nil where the target is another database.
func (t *Target) Postgres() *pgx.ConnConfig {
	if t.postgres == nil {
		return nil
	}
	return t.postgres.Copy()
}

// refusesParameters recognises a pooler that takes no startup parameters.
func refusesParameters(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "08P01"
}
