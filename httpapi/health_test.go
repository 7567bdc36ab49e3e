package httpapi_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

// fromMemory are what must be answered whatever the database does.
var fromMemory = []string{"/livez", "/readyz", "/role/member"}

// With the database gone, what orchestrators and load balancers ask is answered rightly and
// asks it nothing; what cannot be answered says so, and the status says why.
func TestWithoutADatabase(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		s := join(t, dbtest.Migrated(t, dsn), "app-7") // on a pool of its own, as its beats are statements too
		db, tap := dbtest.OpenTapped(t, dsn)
		d := serve(t, db, func(c *httpapi.Config) { c.Sessions = func() []*heartbeat.Session { return []*heartbeat.Session{s} } })
		read[httpapi.Status](d, "/v1/status") // it has been used
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		before := tap.Statements()
		check := func(path string, want int) {
			t.Helper()
			if a := d.get(path).wantsStatus(t, want); (a.body == "ok\n") != (want == 200) {
				t.Fatalf("%s: got %d %s", path, a.status, a.body)
			}
		}
		for _, path := range fromMemory {
			check(path, 200)
		}
		if a := d.get("/metrics"); !strings.Contains(a.body, `coordd_session_valid{name="app-7"} 1`) {
			t.Fatalf("metrics: got %s", a.body)
		}
		if a := d.get("/readyz?verbose").wantsStatus(t, 200); !strings.Contains(a.body, "[+] session app-7 "+s.ID()) {
			t.Fatalf("got %s", a.body)
		}
		if err := s.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("/livez", 200)
		check("/readyz", 503)
		check("/role/member", 503)
		if a := d.get("/readyz?verbose").wantsStatus(t, 503); !strings.Contains(a.body, "[-] session app-7") {
			t.Fatalf("got %s", a.body)
		}
		if n := tap.Statements() - before; n != 0 {
			t.Fatalf("got %d statements, want none", n)
		}
		for _, path := range []string{"/v1/members", "/v1/members/app-7", "/v1/events", "/v1/watch"} {
			if p := d.get(path).wants(t, 503, "database_unreachable"); p.Hint == "" {
				t.Fatalf("%s: got %+v, want a hint", path, p)
			}
		}
		status := read[httpapi.Status](d, "/v1/status")
		if status.Database.Reachable || status.Database.Problem == nil || status.Database.Problem.Code != "database_unreachable" {
			t.Fatalf("got %+v", status)
		}
	})
}

// Who leads is known from memory: for a client, for itself, and not any more.
func TestWhoLeadsIsKnownFromMemory(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		s := join(t, dbtest.Migrated(t, dsn), "app-7")
		db, tap := dbtest.OpenTapped(t, dsn)
		leads := ""
		d := serve(t, db, func(c *httpapi.Config) {
			c.Sessions = func() []*heartbeat.Session { return []*heartbeat.Session{s} }
			c.Leads = func(election string) bool { return election == leads }
		})
		for _, name := range []string{"x", "a/b", "a%b", "a%2Fb", "ä", "100%25 of it"} {
			path := "/role/leader/" + url.PathEscape(name)
			if a := d.get(path).wantsStatus(t, 503); a.body == "ok\n" {
				t.Fatalf("nobody leads %s: got %q", name, a.body)
			}
			client := d.campaign(name)
			client.put("", "").granted(t)
			before := tap.Statements()
			if a := d.get(path).wantsStatus(t, 200); a.body != "ok\n" {
				t.Fatalf("%s: got %q", path, a.body)
			}
			d.do(request{method: "HEAD", path: path}).wantsStatus(t, 200)
			d.get("/role/leader/other").wantsStatus(t, 503)
			if n := tap.Statements() - before; n != 0 {
				t.Fatalf("got %d statements, want none", n)
			}
			client.remove().wantsStatus(t, 204)
			d.get(path).wantsStatus(t, 503)
			leads = name
			d.get(path).wantsStatus(t, 200)
			leads = ""
		}
		d.get("/role/leader/").wants(t, 404, "not_found")
		d.get("/role/leader/a/b").wants(t, 404, "not_found")
	})
}

func TestStatus(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		tidied := time.Now().UTC()
		d := serve(t, db, func(c *httpapi.Config) {
			c.Want = 2
			c.Loops = func() []httpapi.Loop { return []httpapi.Loop{{Name: "tidy", LastSuccess: tidied}, {Name: "never"}} }
		})
		join(t, db, "other")
		product, err := db.Product(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := read[httpapi.Status](d, "/v1/status")
		s := got.Sessions[0]
		if got.Version != "test" || got.Wanted != 2 || len(got.Sessions) != 1 || s.ID != d.session.ID() || s.Name != "app-7" || s.Status != "connected" || !s.Valid || s.RemainingMS <= 0 {
			t.Fatalf("got %+v", got)
		}
		b := got.Database
		if !b.Reachable || b.Product != product || b.Schema != coordd.SchemaVersion || b.Revision != 2 || !b.Intact || b.Quarantined || b.Members["alive"] != 2 || b.Problem != nil {
			t.Fatalf("got %+v", b)
		}
		if len(got.Loops) != 2 || !got.Loops[0].LastSuccess.Equal(tidied) {
			t.Fatalf("got %+v", got.Loops)
		}
		metrics := d.get("/metrics").body
		for _, want := range []string{"coordd_beats_total", "coordd_sessions_wanted 2", "coordd_sessions_valid 1", "coordd_session_remaining_seconds", "go_goroutines",
			`coordd_loop_last_success_timestamp_seconds{loop="tidy"}`} {
			if !strings.Contains(metrics, want) {
				t.Errorf("metrics lack %s", want)
			}
		}
		if strings.Contains(metrics, `loop="never"`) {
			t.Error("metrics tell when a loop succeeded that never has")
		}
		set(t, db, "history", -1)
		if b := read[httpapi.Status](d, "/v1/status").Database; !b.Quarantined {
			t.Fatalf("in quarantine: got %+v", b)
		}
	})
}

// Two sessions of one name, as while one is joined again, are no error of the metrics.
func TestMetricsBearTwoSessionsOfAName(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b := join(t, db, "twin"), join(t, db, "twin")
		d := serve(t, db, func(c *httpapi.Config) {
			c.Sessions = func() []*heartbeat.Session { return []*heartbeat.Session{a, b} }
		})
		if got := d.get("/metrics").wantsStatus(t, 200); !strings.Contains(got.body, "coordd_sessions_valid 2") || strings.Count(got.body, "coordd_session_valid{") != 1 {
			t.Fatalf("got %s", got.body)
		}
	})
}

func TestDoctorAndConfigAreWhatTheyAreGiven(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		without := serve(t, db, nobody)
		without.get("/v1/doctor").wants(t, 501, "not_available")
		without.get("/v1/config").wants(t, 501, "not_available")
		var fails error
		d := serve(t, db, nobody, func(c *httpapi.Config) {
			c.Doctor = func(context.Context) ([]httpapi.Finding, error) {
				return []httpapi.Finding{{Name: "clock", Verdict: httpapi.Warning, Found: "it is 3 s ahead", Fix: "run chrony"}}, fails
			}
			c.Settings = func() any { return map[string]any{"dsn": "postgres://app@db/app"} }
		})
		if got := d.get("/v1/doctor").wantsStatus(t, 200).body; got != `{"findings":[{"name":"clock","verdict":"warning","found":"it is 3 s ahead","fix":"run chrony"}]}`+"\n" {
			t.Fatalf("got %s", got)
		}
		if got := d.get("/v1/config").wantsStatus(t, 200).body; got != `{"dsn":"postgres://app@db/app"}`+"\n" {
			t.Fatalf("got %s", got)
		}
		fails = coordd.ErrReadOnly
		d.get("/v1/doctor").wants(t, 503, "database_read_only")
	})
}

func TestProfilesAreServedWhereAskedFor(t *testing.T) {
	db := dbtest.Migrated(t, dbtest.SQLiteFile(t))
	serve(t, db, nobody).get("/debug/pprof/").wants(t, 404, "not_found")
	d := serve(t, db, nobody, func(c *httpapi.Config) { c.Pprof = true })
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/profile?seconds=1"} {
		d.get(path).wantsStatus(t, 200)
	}
	d.get("/debug/pprof/cmdline").wantsStatus(t, 404)
}

// What load balancers ask many times a second, with the database gone, over TCP; and what a
// server that does nothing takes on this machine: go test ./httpapi -run '^$' -bench .
func BenchmarkFromMemory(b *testing.B) {
	db := dbtest.Migrated(b, dbtest.SQLiteFile(b))
	d := serve(b, db)
	if err := db.Pool().Close(); err != nil {
		b.Fatal(err)
	}
	nothing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") }))
	defer nothing.Close()
	urls := []string{nothing.URL + "/nothing"}
	for _, path := range fromMemory {
		urls = append(urls, d.scheme+d.address+path)
	}
	for _, url := range urls {
		b.Run(path.Base(url), func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				resp, err := d.client.Get(url)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					b.Fatal(err)
				}
				resp.Body.Close()
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
