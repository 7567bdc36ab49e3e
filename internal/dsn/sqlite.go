package dsn

import (
	"context"
	"database/sql"
	"net/url"
	"time"

	_ "modernc.org/sqlite" // the driver called "sqlite"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dialect"
)

// openSQLite opens a pool of one connection, as SQLite has one writer. Transactions take
// the write lock when they begin: one that asked for it later would fail at once if
// another had written meanwhile. A commit reaches the disk before it is answered.
func (t *Target) openSQLite(ctx context.Context, bound time.Duration) (*coordd.DB, error) {
	query := url.Values{
		"_txlock": {"immediate"},
		"_pragma": {
			"busy_timeout(" + dialect.SQLite.Bounds(bound)["busy_timeout"] + ")",
			"journal_mode(wal)",
			"synchronous(full)",
		},
	}
	pool, err := sql.Open("sqlite", "file:"+(&url.URL{Path: t.path}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(1)
	return answers(ctx, coordd.SQLite(pool))
}
