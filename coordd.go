package coordd

import (
	"context"
	"database/sql"
	"sync/atomic"

	"github.com/coordd/coordd/internal/dialect"
)

// DB is your connection pool and the kind of database behind it. Make one for each
// pool; it is safe for concurrent use. Closing the pool stays with whoever opened it.
type DB struct {
	Queries
	pool *sql.DB
	kept atomic.Int64 // connections that lanes keep for themselves
	bell bell

	// Listener shortens waits for what other processes change; nil means that whoever waits
	// looks from time to time. Set it before the DB is used by others.
	Listener Listener
}

// Postgres is coordd on PostgreSQL 12 or newer.
//
// Behind PgBouncer in transaction mode, open the pool with pgx's
// default_query_exec_mode=cache_describe (or exec), as named prepared statements do
// not work there.
func Postgres(pool *sql.DB) *DB { return newDB(pool, dialect.Postgres, "") }

// MySQL is coordd on MySQL 8.0 or newer, on MariaDB (10.6.19, 10.11.9, 11.4.3 or newer), or on
// a Galera cluster of it; the server is asked which it is when it is first used. Open the pool with
// interpolateParams=true: without it each statement takes three round trips. On Galera a pool's
// connections lead to one node, or have wsrep_sync_wait=1: what was written is to be read.
//
// A process that freezes inside a transaction keeps what that has locked. MariaDB ends such a one where
// the pool has set idle_transaction_timeout, say to twice TTL/4; MySQL has nothing like it.
func MySQL(pool *sql.DB) *DB { return newDB(pool, dialect.MySQL, dialect.MySQLVersion) }

// SQLite is coordd on SQLite 3.42 or newer: processes of one host that share a file. Open
// the pool with _txlock=immediate, the WAL journal and a busy timeout below TTL/4 (a
// statement that waits for it hears nothing of its context), and not on a
// network file system.
func SQLite(pool *sql.DB) *DB { return newDB(pool, dialect.SQLite, "") }

func newDB(pool *sql.DB, family *dialect.Dialect, ask string) *DB {
	s := &server{family: family, ask: ask}
	return &DB{Queries: Queries{on: pool, server: s, retries: true}, pool: pool}
}

// Pool is the pool that the DB was made of.
func (db *DB) Pool() *sql.DB { return db.pool }

// On runs coordd's statements on a connection or transaction of yours.
func (db *DB) On(on Querier) Queries { return Queries{on: on, server: db.server} }

// Product names the database as people do: "PostgreSQL", "MySQL", "MariaDB", "Galera" or "SQLite".
func (db *DB) Product(ctx context.Context) (string, error) {
	d, err := db.server.resolve(ctx, db.pool)
	if err != nil {
		return "", err
	}
	return d.Name, nil
}

// Begin begins a transaction at the isolation level for which coordd's statements are made:
// READ COMMITTED, and on SQLite its own.
func (db *DB) Begin(ctx context.Context) (*sql.Tx, error) {
	d, err := db.server.resolve(ctx, db.pool)
	if err != nil {
		return nil, err
	}
	tx, err := db.pool.BeginTx(ctx, &sql.TxOptions{Isolation: d.Isolation})
	return tx, db.server.explain(err)
}

// Text is a statement of coordd's wording as this database reads it.
func (db *DB) Text(ctx context.Context, stmt string) (string, error) {
	d, err := db.server.resolve(ctx, db.pool)
	if err != nil {
		return "", err
	}
	return d.Text(stmt), nil
}

// Fence is a check in SQL that a right is still held, for a transaction of the same
// database.
type Fence struct {
	Query string // with its arguments as the database takes them: $1 or ?
	Args  []any
	Token int64
}

// Explain gives an error of the database that came by another way than coordd's own
// statements its meaning: an [*Error], where there is something to say.
func (db *DB) Explain(err error) error { return db.server.explain(err) }

// server is what is known of the database behind a pool.
type server struct {
	family *dialect.Dialect // tells what its errors mean
	ask    string           // the statement that tells which of the family it is; empty: there is one

	dialect atomic.Pointer[dialect.Dialect] // once it was asked
}

// resolve asks a server of the MySQL family which one it is, if it has not answered yet.
// Several may ask at once: to wait for another's answer would mean to wait for its
// connection.
func (s *server) resolve(ctx context.Context, on Querier) (*dialect.Dialect, error) {
	if s.ask == "" {
		return s.family, nil
	}
	if d := s.dialect.Load(); d != nil {
		return d, nil
	}
	var version string
	var autocommit bool
	var wsrep string
	if err := on.QueryRowContext(ctx, s.ask).Scan(&version, &autocommit, &wsrep); err != nil {
		return nil, s.explain(err)
	}
	d, err := dialect.OfMySQL(version, autocommit, wsrep)
	s.dialect.Store(d)
	return d, err
}
