package doctor

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
)

// sound are the settings of servers that lose nothing; those of the tests' own are quicker.
var sound = map[string]dbtest.Extra{
	"postgres": {Args: []string{"-c", "fsync=on", "-c", "full_page_writes=on", "-c", "max_connections=50"}},
	"mysql":    {Args: []string{"--innodb-flush-log-at-trx-commit=1", "--max-connections=50"}},
}

var start = map[string]func(testing.TB, dbtest.Extra) *dbtest.Server{
	"postgres": dbtest.StartPostgres, "mysql": dbtest.StartMySQL,
}

// A fault is planted in a database, and the doctor sees it and nothing else.
type fault struct {
	name  string
	plant func(t *testing.T, w *ward) (dsn string, cfg Config)
	want  map[string]said
}

// planted runs each fault on a database of its own, on one server, one after the other.
func planted(t *testing.T, server *dbtest.Server, faults []fault) {
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			dsn, cfg := f.plant(t, admit(t, server, fmt.Sprint("ward", i)))
			ails(t, examined(t, dsn, cfg), f.want)
		})
	}
}

func healthy(_ *testing.T, w *ward) (string, Config) { return w.dsn, Config{} }

// query plants a fault by statements of the administrator's.
func query(stmts ...string) func(*testing.T, *ward) (string, Config) {
	return func(t *testing.T, w *ward) (string, Config) {
		w.exec(t, w.admin, stmts...)
		return w.dsn, Config{}
	}
}

// The faults that both servers can have.
var common = []fault{
	{"healthy", healthy, nil},
	{"unreachable", func(t *testing.T, w *ward) (string, Config) {
		return with(t, w.dsn, func(u *url.URL) { u.Host = "127.0.0.1:1" }), Config{}
	}, map[string]said{Connection: {Failed, "cannot be reached"}}},
	{"wrong password", func(t *testing.T, w *ward) (string, Config) {
		return with(t, w.dsn, func(u *url.URL) { u.User = url.UserPassword(w.name, secret+"x") }), Config{}
	}, map[string]said{Connection: {Failed, "refused the user or password"}}},
	{"no database", func(t *testing.T, w *ward) (string, Config) {
		return with(t, w.dsn, func(u *url.URL) { u.Path, u.User = "/nowhere", mustParse(t, w.server.DSN()).User }), Config{}
	}, map[string]said{Connection: {Failed, "no such database"}}},
	{"a missing privilege", func(t *testing.T, w *ward) (string, Config) {
		w.exec(t, w.admin, `revoke update, delete on coordd_heartbeats from `+w.name)
		return w.dsn, Config{}
	}, map[string]said{"privileges": {Failed, "update, delete on coordd_heartbeats"}}},
	{"an older schema", query(fmt.Sprint(`delete from coordd_migrations where version_id = `, coordd.SchemaVersion)),
		map[string]said{"schema": {Failed, fmt.Sprint("of version ", coordd.SchemaVersion-1)}}},
	{"a newer schema", query(`insert into coordd_migrations (version_id, is_applied) values (1000, true)`),
		map[string]said{"schema": {Failed, "of version 1000"}}},
	{"another history", query(`update coordd_meta set value = 7, text = 'elsewhere' where name = 'history'`),
		map[string]said{"history": {Warning, "its history was elsewhere and is"}}},
	{"a TTL over the limit", func(_ *testing.T, w *ward) (string, Config) {
		return w.dsn, Config{TTL: 20 * time.Second}
	}, map[string]said{"ttl": {Failed, "20s is over this database's limit of 15s"}}},
	{"a slow path", func(t *testing.T, w *ward) (string, Config) {
		address, _ := dbtest.Relay(t, "127.0.0.1", mustParse(t, w.dsn).Host, 150*time.Millisecond)
		return with(t, w.dsn, func(u *url.URL) { u.Host = address }), Config{Timeout: 300 * time.Millisecond, Patience: 20 * time.Second}
	}, map[string]said{"latency": {Warning, "at the most; a statement may take 300ms (TTL 15s)"}}},
	{"a very slow path", func(t *testing.T, w *ward) (string, Config) {
		address, _ := dbtest.Relay(t, "127.0.0.1", mustParse(t, w.dsn).Host, 60*time.Millisecond)
		return with(t, w.dsn, func(u *url.URL) { u.Host = address }), Config{Timeout: 50 * time.Millisecond}
	}, map[string]said{"latency": {Failed, "most beats would fail"}}},
	{"no TLS over a network", func(t *testing.T, w *ward) (string, Config) {
		address, _ := dbtest.Relay(t, outside(t), mustParse(t, w.dsn).Host, 0)
		return with(t, w.dsn, func(u *url.URL) { u.Host = address }), Config{}
	}, map[string]said{"tls": {Warning, "not encrypted"}}},
	{"a pool of one", func(t *testing.T, w *ward) (string, Config) {
		pool := dbtest.Open(t, w.dsn)
		pool.Pool().SetMaxOpenConns(1)
		return w.dsn, Config{Pool: pool}
	}, map[string]said{"pool": {Warning, "1 at the most, and 1 session(s) take 2 at least"}}},
	{"a pool of fewer than the members", func(t *testing.T, w *ward) (string, Config) {
		pool := dbtest.Open(t, w.dsn)
		pool.Pool().SetMaxOpenConns(3)
		return w.dsn, Config{Pool: pool, Members: 3}
	}, map[string]said{"pool": {Warning, "3 at the most, and 3 session(s) take 4 at least"}}},
	{"few connections left", func(t *testing.T, w *ward) (string, Config) {
		w.admin.Pool().SetMaxOpenConns(0)
		for range 50 * 9 / 10 {
			conn, err := w.admin.Pool().Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
		}
		return with(t, w.dsn, func(u *url.URL) { u.User = mustParse(t, w.server.DSN()).User }), Config{Pool: w.admin}
	}, map[string]said{"connections": {Warning, "are left"}}},
	{"in quarantine", func(t *testing.T, w *ward) (string, Config) {
		quarantine(t, w)
		return w.dsn, Config{}
	}, map[string]said{"history": {Warning, "nothing is granted before a member has watched it for the longest TTL, 15s"}}},
}

func TestTheDoctorFindsEachFaultOfPostgres(t *testing.T) {
	t.Parallel()
	server := dbtest.StartPostgres(t, sound["postgres"])
	planted(t, server, append(common, []fault{
		{"read-only", func(t *testing.T, w *ward) (string, Config) {
			return setting(t, w.dsn, "default_transaction_read_only", "on"), Config{}
		}, map[string]said{"primary": {Failed, "default_transaction_read_only is on"}}},
		{"commits that are not flushed", query(`alter role all set synchronous_commit = off`),
			map[string]said{"durability": {Warning, "synchronous_commit is off"}}},
		{"healthy again", query(`alter role all reset synchronous_commit`), nil},
		{"serializable", func(t *testing.T, w *ward) (string, Config) {
			return setting(t, w.dsn, "default_transaction_isolation", "serializable"), Config{}
		}, map[string]said{"isolation": {Warning, "serializable"}}},
		{"a transaction left open", func(t *testing.T, w *ward) (string, Config) {
			w.exec(t, w.root, `grant pg_read_all_stats to `+w.name)
			w.open(t, `select * from coordd_heartbeats`)
			time.Sleep(20 * time.Millisecond)
			return w.dsn, Config{Old: 10 * time.Millisecond}
		}, map[string]said{"transactions": {Warning, "idle in transaction, of postgres by coordd"}}},
		{"a transaction that the user may not see", func(t *testing.T, w *ward) (string, Config) {
			w.open(t, `select * from coordd_heartbeats`)
			return w.dsn, Config{Old: time.Nanosecond}
		}, nil},
		{"a pooler in transaction mode", func(t *testing.T, w *ward) (string, Config) {
			return dbtest.PgBouncer(t, setting(t, w.dsn, "search_path", "public")).DSN, Config{}
		}, map[string]said{
			"pooler": {Warning, "a pooler in transaction mode, where no setting of a connection holds: the server does not end"},
			"notify": {Warning, "hints are off"},
		}},
		{"a pooler before a user with settings", func(t *testing.T, w *ward) (string, Config) {
			w.exec(t, w.root, `alter role `+w.name+` set statement_timeout = '1s'`)
			return dbtest.PgBouncer(t, setting(t, w.dsn, "search_path", "public")).DSN, Config{}
		}, map[string]said{
			"pooler": {Warning, "the server ends statements by its own settings"},
			"notify": {Warning, "hints are off"},
		}},
		{"no fingerprint", query(`revoke execute on function pg_control_system() from public`),
			map[string]said{"history": {Failed, "its fingerprint cannot be seen"}}},
	}...))
}

func TestTheDoctorFindsEachFaultOfMySQL(t *testing.T) {
	t.Parallel()
	server := dbtest.StartMySQL(t, sound["mysql"])
	planted(t, server, append(common, []fault{
		{"read-only", func(t *testing.T, w *ward) (string, Config) {
			w.exec(t, w.root, `set global read_only = 1`)
			t.Cleanup(func() { w.root.Pool().Exec(`set global read_only = 0`) })
			return w.dsn, Config{}
		}, map[string]said{"primary": {Failed, "read_only is set"}}},
		{"commits that are not flushed", func(t *testing.T, w *ward) (string, Config) {
			w.exec(t, w.root, `set global innodb_flush_log_at_trx_commit = 2`)
			t.Cleanup(func() { w.root.Pool().Exec(`set global innodb_flush_log_at_trx_commit = 1`) })
			return w.dsn, Config{}
		}, map[string]said{"durability": {Warning, "innodb_flush_log_at_trx_commit is 2"}}},
		{"reads of what is not committed", func(t *testing.T, w *ward) (string, Config) {
			return setting(t, w.dsn, "tx_isolation", "'READ-UNCOMMITTED'"), Config{}
		}, map[string]said{"isolation": {Failed, "read uncommitted"}}},
		{"no autocommit", func(t *testing.T, w *ward) (string, Config) {
			return setting(t, w.dsn, "autocommit", "0"), Config{}
		}, map[string]said{Connection: {Failed, "autocommit is off"}}},
		{"a transaction left open", func(t *testing.T, w *ward) (string, Config) {
			w.exec(t, w.root, `grant process on *.* to `+w.name)
			w.open(t, `update coordd_meta set value = value + 1 where name = 'compacted'`)
			time.Sleep(1200 * time.Millisecond) // it is told in whole seconds
			return w.dsn, Config{Old: time.Second}
		}, map[string]said{"transactions": {Warning, "1 rows changed"}}},
		{"a transaction that the user may not see", func(t *testing.T, w *ward) (string, Config) {
			w.open(t, `update coordd_meta set value = value + 1 where name = 'compacted'`)
			return w.dsn, Config{Old: time.Nanosecond}
		}, nil},
		{"three round trips", func(t *testing.T, w *ward) (string, Config) {
			return w.dsn, Config{Pool: preparing(t, w.dsn)}
		}, map[string]said{"prepare": {Warning, "three round trips"}}},
	}...))
}

func TestABinlogThatIsNotFlushedIsFound(t *testing.T) {
	t.Parallel()
	extra := sound["mysql"]
	extra.Args = append(extra.Args, "--log-bin=log", "--server-id=1")
	planted(t, dbtest.StartMySQL(t, extra), []fault{
		{"", healthy, map[string]said{"durability": {Warning, "sync_binlog is 0"}}},
	})
}

// A server that follows another.
func TestAStandbyIsFound(t *testing.T) {
	t.Parallel()
	server := dbtest.StartPostgres(t, sound["postgres"])
	w := admit(t, server, "ward")
	w.exec(t, w.root, `do $$ begin execute format('copy (select) to %L', current_setting('data_directory') || '/standby.signal'); end $$`)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ails(t, examined(t, w.dsn, Config{}), map[string]said{"primary": {Failed, "it is a standby"}})
}

// A server that takes TLS, asked for it over a network.
func TestTLSIsSeen(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ cert, key, more, setting, value string }{
		"postgres": {"ssl_cert_file", "ssl_key_file", "ssl=on", "sslmode", "require"},
		"mysql":    {"ssl-cert", "ssl-key", "tls-version=TLSv1.3", "tls", "skip-verify"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cert, key := certificate(t, name) // which is what the accounts are called too
			extra, flag := sound[name], "-c"
			for _, arg := range []string{test.cert + "=" + cert, test.key + "=" + key, test.more} {
				if name == "mysql" {
					flag, arg = "", "--"+arg
				}
				extra.Args = slices.DeleteFunc(append(slices.Clone(extra.Args), flag, arg), func(s string) bool { return s == "" })
			}
			w := admit(t, start[name](t, extra), "ward")
			address, _ := dbtest.Relay(t, outside(t), mustParse(t, w.dsn).Host, 0)
			findings := examined(t, setting(t, with(t, w.dsn, func(u *url.URL) { u.Host = address }), test.setting, test.value), Config{})
			ails(t, findings, nil)
			i := slices.IndexFunc(findings, func(f Finding) bool { return f.Name == "tls" })
			if got := findings[i].Found; !strings.Contains(got, "encrypted (TLS") {
				t.Errorf("got %s, want what it is encrypted by", got)
			}
		})
	}
}

func TestASteppedClockIsFound(t *testing.T) {
	t.Parallel()
	for name, library := range map[string]string{"postgres": "libfaketime.so.1", "mysql": "libfaketimeMT.so.1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			extra := sound[name]
			extra.Env = []string{"LD_PRELOAD=" + faketime(t, library), "FAKETIME=+3600s", "DONT_FAKE_MONOTONIC=1"}
			w := admit(t, start[name](t, extra), "ward")
			ails(t, examined(t, w.dsn, Config{}), map[string]said{"clock": {Warning, "ahead of this host's"}})
		})
	}
}

// faketime finds the library that steps a server's clock.
func faketime(t *testing.T, library string) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/*/faketime/" + library)
	if err != nil || len(found) == 0 {
		missing := t.Skip
		if os.Getenv("CI") == "true" {
			missing = t.Fatal
		}
		missing("libfaketime is missing: apt-get install libfaketime")
	}
	return found[0]
}

func TestAFileIsExamined(t *testing.T) {
	t.Parallel()
	file := dbtest.SQLiteFile(t)
	path := strings.TrimPrefix(file, "sqlite:")
	ails(t, examined(t, file, Config{}), map[string]said{Connection: {Failed, "there is no file " + path}})
	if _, err := os.Stat(path); err == nil {
		t.Fatal("got the file made, want it only looked for")
	}
	db := dbtest.Migrated(t, file)
	ails(t, examined(t, file, Config{}), nil)
	if _, err := db.Exec(t.Context(), `delete from coordd_migrations where version_id > 0`); err != nil {
		t.Fatal(err)
	}
	ails(t, examined(t, file, Config{}), map[string]said{"schema": {Failed, "not in this database"}})
}

func TestAServerThatLacksWhatIsNewIsTooOld(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t, dbtest.MySQLSchema(t))
	p := &patient{db: db, cfg: Config{}.withDefaults(), words: mariadb}
	p.words.proof = `select @@no_such_thing`
	if f, err := p.version(t.Context()); f.Verdict != Failed || !strings.Contains(f.Fix, "10.6.19") {
		t.Fatalf("got %+v and %v, want %s", f, err, Failed)
	}
	for version, want := range map[string]Verdict{
		"11.22 (Debian 11.22-1)": Failed, "12.0": OK, "15.18 (Debian 15.18-0+deb12u1)": OK, "18beta1": OK,
	} {
		p.words = words{version: `select '` + version + `'`, oldest: postgres.oldest}
		if f, err := p.version(t.Context()); err != nil || f.Verdict != want {
			t.Errorf("%s: got %+v and %v, want %s", version, f, err, want)
		}
	}
}
