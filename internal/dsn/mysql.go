package dsn

import (
	"context"
	"maps"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dialect"
)

// openMySQL asks the server what it is, as MySQL and MariaDB bound a statement by
// different settings, and opens the pool with those.
func (t *Target) openMySQL(ctx context.Context, bound time.Duration) (*coordd.DB, error) {
	cfg := t.mysql.Clone()
	cfg.InterpolateParams = true // one round trip a statement instead of three
	cfg.ParseTime = true         // goose needs it
	cfg.Logger = &mysql.NopLogger{}
	first, err := t.openConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer first.Pool().Close()
	product, err := first.Product(ctx)
	if err != nil {
		return nil, err
	}
	bounds := dialect.MariaDB.Bounds(bound) // Galera's too
	if product == dialect.MySQL.Name {
		bounds = dialect.MySQL.Bounds(bound)
	}
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	maps.Copy(cfg.Params, bounds)
	return t.openConfig(ctx, cfg)
}

func (t *Target) openConfig(ctx context.Context, cfg *mysql.Config) (*coordd.DB, error) {
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return t.pool(ctx, connector, coordd.MySQL)
}
