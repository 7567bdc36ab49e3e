package main

import (
	"database/sql"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/internal/dbtest"
)

// holder is docs/clients/lock.py, and tells from when and until when it is valid.
const holder = `
import os, sys
sys.path.insert(0, sys.argv[3])
import lock
def tell(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())
class Recorder(lock.Lock):
    def put(self, *args, **headers):
        try:
            return super().put(*args, **headers)
        finally:
            heard = lock.now()
            if heard < self.valid_until:
                tell("valid", heard, self.valid_until)
    def acquire(self):
        tell("begin", "lock", lock.now())
        return super().acquire()
    def renew(self):
        held = super().renew()
        if not held:
            tell("end", "lock", lock.now())
        return held
lock.Lock = Recorder
lock.main(sys.argv[1], sys.argv[2])
`

// holds says whether a client's lock is valid just now.
func (l *ledger) holds(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, now := l.of(id), bootTime()
	n, runs := len(c.valid), c.jobs["lock"]
	return c.ended == 0 && n > 0 && c.valid[n-1].to > now && len(runs) > 0 && runs[0].to == 0
}

// ownDatabase is a migrated database, and what takes it away and gives it back.
func ownDatabase(t *testing.T, product string) (dsn string, away, back func()) {
	t.Helper()
	if product == "sqlite" {
		dsn = dbtest.SQLiteFile(t)
		pool := dbtest.Migrated(t, dsn).Pool()
		var tx *sql.Tx // nobody else writes while it lasts
		away = func() {
			dbtest.Eventually(t, "SQLite's one transaction", func() (begun bool) {
				var err error
				tx, err = pool.BeginTx(t.Context(), nil)
				return err == nil
			})
		}
		return dsn, away, func() { tx.Rollback() }
	}
	var server *dbtest.Server
	if product == "postgres" {
		server = dbtest.StartPostgres(t, dbtest.Extra{})
		dsn = server.DSN()
	} else {
		server = dbtest.StartMySQL(t, dbtest.Extra{})
		if _, err := dbtest.Open(t, server.DSN()).Pool().ExecContext(t.Context(), `create database coordd`); err != nil {
			t.Fatal(err)
		}
		dsn = server.DSN() + "coordd"
	}
	dbtest.Migrated(t, dsn)
	return dsn, server.Pause, server.Resume
}

// Three daemons, each with a client in Python's own library, want one lock. Whatever happens to who
// holds it, to its daemon or to the database: it is valid at one of them at a time, who was
// not killed says itself that it has lost it, and another has it then.
func TestPythonHoldsALock(t *testing.T) {
	t.Parallel()
	for _, product := range []string{"postgres", "mysql", "sqlite"} {
		t.Run(product, func(t *testing.T) {
			t.Parallel()
			dsn, away, back := ownDatabase(t, product)
			l := &ledger{clients: map[string]*told{}}
			hosts := threeHosts(t, dsn, holder, l)
			revived := time.Now()
			held := func() (by *host) { // clients that have ended are started again, as a service manager would
				dbtest.Eventually(t, "somebody who holds the lock", func() bool {
					again := time.Since(revived) > 200*time.Millisecond
					for _, h := range hosts {
						select {
						case <-h.over:
							if again {
								revived = time.Now()
								h.startClient()
							}
						default:
						}
						if l.holds(h.id()) {
							by = h
						}
					}
					return by != nil
				})
				return by
			}
			for _, mishap := range []struct {
				what   string
				befall func(h *host)
				loses  bool // and lives to tell it
			}{
				{"its client is killed", func(h *host) { h.killClient() }, false},
				{"its client is frozen", func(h *host) { freeze(t, h.client) }, true},
				{"its daemon is killed", func(h *host) { h.restartDaemon(syscall.SIGKILL) }, true},
				{"its daemon is told to end", func(h *host) { h.restartDaemon(syscall.SIGTERM) }, true},
				{"its daemon is frozen", func(h *host) { freeze(t, h.daemon) }, true},
				{"the database is away", func(*host) { away(); time.Sleep(5 * time.Second); back() }, true},
				{"somebody asks for it", func(*host) {
					if code, _, stderr := run(t, "locks", "release", "g", "--force", "--reason", "it hangs", "--dsn", dsn); code != exitOK {
						t.Errorf("release: %s", stderr)
					}
				}, true},
				{"its client is frozen while its daemon ends", func(h *host) { h.mishap(5, 2*time.Second) }, true},
			} {
				h := held()
				id, over := h.id(), h.over
				t.Logf("%s: %s", id, mishap.what)
				mishap.befall(h)
				if mishap.loses {
					dbtest.Eventually(t, id+" ended, as it has lost the lock", func() bool {
						select {
						case <-over:
							return true
						default:
							return false
						}
					})
				}
				if next := held(); next.id() == id {
					t.Errorf("%s: got %s as the next holder, want another", mishap.what, id)
				}
			}
			t.Logf("the longest time in which nobody held it: %.1f s", l.longestGap(t))
			if all := l.spans()["lock"]; len(all) < 9 {
				t.Errorf("%d held the lock, want one for each mishap and one more: %v", len(all), all)
			}
		})
	}
}
