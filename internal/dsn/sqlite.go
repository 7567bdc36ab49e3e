package dsn

import (
	"context"
	"database/sql/driver"
	"net/url"
	"time"

	"modernc.org/sqlite"

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
	c := fileConnector{"file:" + (&url.URL{Path: t.path}).EscapedPath() + "?" + query.Encode()}
	db, err := t.pool(ctx, c, coordd.SQLite)
	if err == nil {
		db.Pool().SetMaxOpenConns(1)
	}
	return db, err
}

// fileConnector connects to a file by the DSN that modernc.org/sqlite takes.
type fileConnector struct{ dsn string }

func (c fileConnector) Connect(context.Context) (driver.Conn, error) { return c.Driver().Open(c.dsn) }
func (c fileConnector) Driver() driver.Driver                        { return &sqlite.Driver{} }
