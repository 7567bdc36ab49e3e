// Package dsn opens a database by one line: a URL (postgres://, mysql://, sqlite:) or
// go-sql-driver's own form. It is for coordd's own programs and tests; who imports the
// library brings a pool.
package dsn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"github.com/coordd/coordd"
)

// Forms says what a DSN looks like, for errors and help.
const Forms = `postgres://user:password@host:5432/database, mysql://user:password@host:3306/database, sqlite:file.db, or go-sql-driver's user:password@tcp(host:3306)/database`

// Target is a parsed DSN.
type Target struct {
	kind     string // postgres, mysql or sqlite
	postgres *pgx.ConnConfig
	mysql    *mysql.Config // MariaDB too
	path     string        // of SQLite
	shown    string        // without the password

	// Wrap, if set, is put around the driver before a pool is opened on it: tests watch
	// and disturb what passes.
	Wrap func(driver.Connector) driver.Connector
}

// String is the DSN without its password.
func (t *Target) String() string { return t.shown }

// Kind is postgres, mysql (MariaDB too) or sqlite.
func (t *Target) Kind() string { return t.kind }

// File is the path of a SQLite database, and empty for a server.
func (t *Target) File() string { return t.path }

// Local says that the way to the database does not leave this machine, so that nobody can
// listen on it.
func (t *Target) Local() bool {
	var hosts []string
	switch {
	case t.postgres != nil:
		hosts = append(hosts, t.postgres.Host)
		for _, other := range t.postgres.Fallbacks {
			hosts = append(hosts, other.Host)
		}
	case t.mysql != nil && t.mysql.Net == "tcp":
		host, _, err := net.SplitHostPort(t.mysql.Addr)
		if err != nil {
			return false
		}
		hosts = append(hosts, host)
	}
	return !slices.ContainsFunc(hosts, func(host string) bool {
		ip := net.ParseIP(host)
		return host != "localhost" && !strings.HasPrefix(host, "/") && (ip == nil || !ip.IsLoopback())
	})
}

// Parse reads a DSN. Its errors never repeat it, as it may hold a password.
func Parse(s string) (*Target, error) {
	scheme, rest, _ := strings.Cut(s, ":")
	switch {
	case s == "":
		return nil, errors.New("the DSN is empty: it is " + Forms)
	case scheme == "postgres" || scheme == "postgresql":
		return parsePostgres(s)
	case scheme == "mysql" || scheme == "mariadb":
		return parseMySQLURL(s)
	case scheme == "sqlite" || scheme == "sqlite3" || scheme == "file":
		return parseSQLite(rest)
	case strings.Contains(s, ")/") || strings.Contains(s, "@/"):
		return parseMySQL(s)
	}
	return nil, errors.New("cannot tell which database the DSN means: it is " + Forms)
}

func parsePostgres(s string) (*Target, error) {
	u, err := parseURL(s)
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig(s)
	if err != nil {
		return nil, errors.New("pgx does not take the DSN: check its parameters (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS)")
	}
	return &Target{kind: "postgres", postgres: cfg, shown: redact(u)}, nil
}

func parseMySQLURL(s string) (*Target, error) {
	u, err := parseURL(s)
	if err != nil {
		return nil, err
	}
	// go-sql-driver knows what the parameters mean.
	cfg, err := mysql.ParseDSN("/?" + u.RawQuery)
	if err != nil {
		return nil, errMySQL
	}
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(orElse(u.Hostname(), "127.0.0.1"), orElse(u.Port(), "3306"))
	cfg.DBName = strings.TrimPrefix(u.Path, "/")
	return mysqlTarget(cfg)
}

func parseMySQL(s string) (*Target, error) {
	cfg, err := mysql.ParseDSN(s)
	if err != nil {
		return nil, errMySQL
	}
	return mysqlTarget(cfg)
}

// errMySQL does not say what go-sql-driver says, as that quotes pieces of the DSN.
var errMySQL = errors.New("go-sql-driver does not take the DSN: check its parameters (https://github.com/go-sql-driver/mysql#parameters)")

// mysqlTarget refuses what go-sql-driver would take for something else than was meant, and
// then show: it sends parameters that it does not know to the server as settings, and takes
// what stands before a bracket for the name of a network.
func mysqlTarget(cfg *mysql.Config) (*Target, error) {
	for key := range cfg.Params {
		switch strings.ToLower(key) {
		case "user", "username", "password", "passwd", "pwd":
			return nil, fmt.Errorf("the DSN has a parameter %s: user and password belong before the @ of the host", key)
		}
	}
	if cfg.Net != "tcp" && cfg.Net != "unix" {
		return nil, errors.New("the DSN names no network that is known, or is missing its @: user:password@tcp(host:3306)/database")
	}
	shown := cfg.Addr
	if cfg.User != "" && !strings.Contains(cfg.User, "@") { // a @ too many makes the password part of it
		shown = url.User(cfg.User).String() + "@" + shown
	}
	return &Target{kind: "mysql", mysql: cfg, shown: "mysql://" + shown + "/" + cfg.DBName}, nil
}

func parseSQLite(path string) (*Target, error) {
	path, query, _ := strings.Cut(path, "?")
	path = strings.TrimPrefix(path, "//") // sqlite:///srv/coordd.db
	switch {
	case path == "":
		return nil, errors.New("the DSN names no file: sqlite:coordd.db")
	case path == ":memory:":
		return nil, errors.New("a database in memory is seen by no other process: give the DSN a file, sqlite:coordd.db")
	case query != "":
		return nil, errors.New("coordd sets SQLite's parameters itself: leave out what follows the question mark in the DSN")
	}
	return &Target{kind: "sqlite", path: path, shown: "sqlite:" + path}, nil
}

// parseURL parses without repeating the URL in its error.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	const encode = "percent-encode what is special in the password, / as %2F, ? as %3F, # as %23 and @ as %40"
	if bad := new(url.Error); errors.As(err, &bad) {
		return nil, fmt.Errorf("the DSN is not a URL (%s): %s", kindOf(bad.Err), encode)
	} else if err != nil {
		return nil, errors.New("the DSN is not a URL: " + encode)
	}
	// A / ? or # in a password ends the host before the @ that should.
	// One @ too many ends the password too early for pgx.
	if strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") || strings.Count(s, "@") > 1 {
		return nil, errors.New("the DSN has an @ that does not stand before its host: " + encode)
	}
	return u, nil
}

// kindOf names what is wrong with a URL and leaves out the piece of it that an error
// quotes, which may be of the password.
func kindOf(err error) string {
	what, _, _ := strings.Cut(err.Error(), `"`)
	return strings.TrimRight(what, " :")
}

// redact shows a URL without its password, which may also stand among the parameters.
func redact(u *url.URL) string {
	shown := url.URL{Scheme: "postgres", Host: u.Host, Path: u.Path}
	if u.User != nil && u.User.Username() != "" {
		shown.User = url.User(u.User.Username())
	}
	return shown.String()
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Open opens a pool on the target and asks the server for an answer. Every connection's
// statements, lock waits and idle transactions are ended by the server after bound.
// Close the pool when done.
func (t *Target) Open(ctx context.Context, bound time.Duration) (*coordd.DB, error) {
	ctx, cancel := context.WithTimeout(ctx, max(bound, 5*time.Second))
	defer cancel()
	open := map[string]func(context.Context, time.Duration) (*coordd.DB, error){
		"postgres": t.openPostgres, "mysql": t.openMySQL, "sqlite": t.openSQLite,
	}[t.kind]
	db, err := open(ctx, bound)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	return db, nil
}

// pool opens a pool, and closes it again if the server does not answer.
func (t *Target) pool(ctx context.Context, c driver.Connector, as func(*sql.DB) *coordd.DB) (*coordd.DB, error) {
	if t.Wrap != nil {
		c = t.Wrap(c)
	}
	db := as(sql.OpenDB(c))
	if err := db.Pool().PingContext(ctx); err != nil {
		db.Pool().Close()
		return nil, unreachable(db.Explain(err))
	}
	return db, nil
}

// unreachable says of an error that has no other meaning that there is no database behind
// the DSN: TLS that does not fit, or a server that speaks another language.
func unreachable(err error) error {
	var known *coordd.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	return &coordd.Error{Kind: coordd.ErrUnreachable, Err: err, Hint: "check the DSN's host, port, database and TLS parameters"}
}
