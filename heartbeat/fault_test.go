package heartbeat

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/clock/clocktest"
	"github.com/coordd/coordd/internal/dbtest"
)

// servers are servers of a test's own, by the name of their product.
var servers = map[string]func(testing.TB, dbtest.Extra) *dbtest.Server{
	"postgres": dbtest.StartPostgres, "mysql": dbtest.StartMySQL,
}

// ownServer starts one, and opens a migrated database on it.
func ownServer(t *testing.T, name string, extra dbtest.Extra) (*dbtest.Server, *coordd.DB) {
	t.Helper()
	server := servers[name](t, extra)
	dsn := server.DSN()
	if name == "mysql" {
		if _, err := dbtest.Open(t, dsn).Pool().ExecContext(t.Context(), `create database coordd`); err != nil {
			t.Fatal(err)
		}
		dsn += "coordd"
	}
	return server, dbtest.Migrated(t, dsn)
}

// With the server itself: stopped for three TTLs and started again, it finds everybody
// who they were.
func TestM3AStoppedDatabaseKillsNobody(t *testing.T) {
	t.Parallel()
	for name := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, db := ownServer(t, name, dbtest.Extra{})
			var all []*Session
			for i := range 3 {
				all = append(all, joined(t, db, Config{Name: fmt.Sprint("app-", i), TTL: shortTTL}))
			}
			if err := server.Stop(); err != nil {
				t.Fatal(err)
			}
			stopped, standstill := time.Now(), clocktest.Watch()
			for _, s := range all {
				dbtest.Eventually(t, "suspended", func() bool { return s.Status() == Suspended })
			}
			if took, still := time.Since(stopped), standstill(); took > shortTTL+still {
				t.Fatalf("all suspended after %v, want at most a TTL of %v; the machine stood still for %v", took, shortTTL, still)
			}
			time.Sleep(time.Until(stopped.Add(3 * shortTTL)))
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			started := time.Now()
			for _, s := range all {
				dbtest.Eventually(t, "connected again", s.Valid)
			}
			t.Logf("connected again after %v; two beats are %v", time.Since(started), 2*shortTTL/3)
			time.Sleep(2 * shortTTL) // nor is anybody reaped afterwards
			for _, s := range all {
				if got := stateOf(t, db, s.ID()); got != Alive || s.Err() != nil {
					t.Fatalf("%s: got %s, %v, want %s", s.Name(), got, s.Err(), Alive)
				}
				dbtest.Eventually(t, "valid again", s.Valid)
			}
		})
	}
}

// No clock of the database decides anything: stepped by an hour in either direction, it
// changes nothing.
func TestAStepOfTheDatabasesClockChangesNothing(t *testing.T) {
	t.Parallel()
	for name, library := range map[string]string{"postgres": "libfaketime.so.1", "mysql": "libfaketimeMT.so.1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			offset := filepath.Join(sharedDir(t), "offset")
			set := func(s string) {
				if err := os.WriteFile(offset, []byte(s+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			set("+0s")
			_, db := ownServer(t, name, dbtest.Extra{Env: []string{
				"LD_PRELOAD=" + faketime(t, library), "FAKETIME_TIMESTAMP_FILE=" + offset, "FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1",
			}})
			lasts := Config{TTL: 15 * time.Second, Beat: shortTTL / 3, Timeout: shortTTL / 4} // on a busy machine too
			lasts.Name = "a"
			a := joined(t, db, lasts)
			lasts.Name = "b"
			b := joined(t, db, lasts)
			for _, step := range []struct {
				set  string
				want time.Duration
			}{{"+3600s", time.Hour}, {"-3600s", -time.Hour}, {"+0s", 0}} {
				set(step.set)
				var now int64
				if err := db.Get(t.Context(), []any{&now}, `select {now}`); err != nil {
					t.Fatal(err)
				}
				if off := time.Until(time.UnixMicro(now)) - step.want; off < -time.Minute || off > time.Minute {
					t.Fatalf("the server's clock did not step to %s: it is off by %v", step.set, off)
				}
				for began := time.Now(); time.Since(began) < 2*shortTTL; time.Sleep(10 * time.Millisecond) {
					if !a.Valid() || !b.Valid() {
						t.Fatalf("%s: got a valid %v, b valid %v", step.set, a.Valid(), b.Valid())
					}
				}
				for _, s := range []*Session{a, b} {
					before := s.Stats().Beats
					dbtest.Eventually(t, "two beats", func() bool { return s.Stats().Beats >= before+2 })
				}
			}
			if x, y := stateOf(t, db, a.ID()), stateOf(t, db, b.ID()); x != Alive || y != Alive {
				t.Fatalf("got %s and %s, want %s", x, y, Alive)
			}
			c := joined(t, db, Config{Name: "c", TTL: shortTTL})
			c.kill()
			set("-3600s")
			dbtest.Eventually(t, "c dead, whatever the clock says", func() bool { return stateOf(t, db, c.ID()) == Dead })
		})
	}
}

// sharedDir is a directory that a server of another user can read.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "coordd-faketime-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
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
