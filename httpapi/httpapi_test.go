package httpapi_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// serve serves the API of one session.
func serve(t *testing.T, db *coordd.DB) (*httptest.Server, *heartbeat.Session) {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: "app-7"})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = httpapi.Server(httpapi.New(httpapi.Config{
		DB: db, Version: "test", Want: 1, Sessions: func() []*heartbeat.Session { return []*heartbeat.Session{s} },
	}))
	server.Start()
	t.Cleanup(func() {
		server.Close()
		if err := s.Leave(t.Context()); err != nil && !errors.Is(err, coordd.ErrUnreachable) {
			t.Log(err) // tests close the pool under it
		}
	})
	return server, s
}

func get(t *testing.T, server *httptest.Server, path string) (status int, kind, body string) {
	t.Helper()
	resp, err := server.Client().Get(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
}

func TestMembersOverHTTP(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		server, s := serve(t, db)
		status, kind, body := get(t, server, "/v1/members")
		var got struct{ Members []httpapi.Member }
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || kind != "application/json" {
			t.Fatalf("got %d, %s, %s (%v)", status, kind, body, err)
		}
		if len(got.Members) != 1 || got.Members[0].ID != s.ID() || got.Members[0].State != "alive" || got.Members[0].Overdue {
			t.Fatalf("got %+v, want %s alive", got.Members, s.ID())
		}
		if strings.Contains(body, "$schema") {
			t.Fatalf("got %s, want no $schema", body)
		}
	})
}

// With the database gone, what orchestrators ask is answered from memory, and what is not
// says so in a way that programs and people can read.
func TestWithoutADatabase(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		server, _ := serve(t, db)
		db.Pool().Close()
		for _, path := range []string{"/livez", "/readyz"} {
			if status, _, body := get(t, server, path); status != 200 || body != "ok\n" {
				t.Fatalf("%s while the session is valid: got %d %s, want 200 ok", path, status, body)
			}
		}
		status, kind, body := get(t, server, "/v1/members")
		if status < 500 || kind != "application/problem+json" || !strings.Contains(body, `"code"`) || !strings.Contains(body, `"hint"`) {
			t.Fatalf("got %d %s %s, want a problem with code and hint", status, kind, body)
		}
	})
}

func TestReadyUntilTheSessionEnds(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		server, s := serve(t, db)
		if status, _, body := get(t, server, "/readyz?verbose"); status != 200 || !strings.Contains(body, "[+] session app-7 "+s.ID()) {
			t.Fatalf("got %d %s, want 200", status, body)
		}
		if err := s.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status, _, body := get(t, server, "/readyz?verbose"); status != 503 || !strings.Contains(body, "[-] session app-7") {
			t.Fatalf("got %d %s, want 503", status, body)
		}
		if status, _, _ := get(t, server, "/livez"); status != 200 {
			t.Fatalf("livez: got %d, want 200", status)
		}
	})
}

func TestMetricsAndDescription(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		server, _ := serve(t, db)
		_, _, metrics := get(t, server, "/metrics")
		for _, want := range []string{`coordd_session_valid{name="app-7"} 1`, "coordd_beats_total", "coordd_sessions_wanted 1", "coordd_sessions_valid 1", "coordd_session_remaining_seconds", "go_goroutines"} {
			if !strings.Contains(metrics, want) {
				t.Errorf("metrics lack %s", want)
			}
		}
		status, _, description := get(t, server, "/openapi.json")
		var d struct {
			OpenAPI string
			Paths   map[string]any
		}
		if err := json.Unmarshal([]byte(description), &d); err != nil || status != 200 || !strings.HasPrefix(d.OpenAPI, "3.1") || d.Paths["/v1/members"] == nil {
			t.Fatalf("got %d, %v, %s", status, err, description)
		}
	})
}

func TestOtherHostsAndOriginsAreRefused(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		server, _ := serve(t, db)
		do := func(method, host, site string) int {
			r, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/v1/members", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			r.Header.Set("Sec-Fetch-Site", site)
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode
		}
		for host, want := range map[string]int{
			"localhost": 200, "localhost:7400": 200, "127.0.0.1:1": 200, "[::1]:80": 200,
			"evil.example": 421, "]127.0.0.1[": 421, "127.0.0.1.evil.example": 421, "10.0.0.1": 421,
		} {
			if got := do("GET", host, "same-origin"); got != want {
				t.Errorf("host %s: got %d, want %d", host, got, want)
			}
		}
		for path, want := range map[string]string{"/v2": `"not_found"`, "/v1/members/": `"not_found"`} {
			if status, kind, body := get(t, server, path); status != 404 || kind != "application/problem+json" || !strings.Contains(body, want) {
				t.Errorf("%s: got %d %s %s, want a problem with %s", path, status, kind, body, want)
			}
		}
		if got := do("DELETE", "localhost", "same-origin"); got != http.StatusMethodNotAllowed {
			t.Errorf("delete: got %d, want %d", got, http.StatusMethodNotAllowed)
		}
		if got := do("HEAD", "localhost", "same-origin"); got != 200 {
			t.Errorf("head: got %d, want 200", got)
		}
		if got := do("POST", "localhost", "cross-site"); got != http.StatusForbidden {
			t.Errorf("a write from another site: got %d, want %d", got, http.StatusForbidden)
		}
	})
}

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	for _, good := range []string{"127.0.0.1:7400", "localhost:0", "[::1]:7400"} {
		if err := httpapi.CheckListen(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{":7400", "0.0.0.0:7400", "10.0.0.1:7400", "[::]:7400", "example.org:7400", "7400", ""} {
		if err := httpapi.CheckListen(bad); err == nil {
			t.Errorf("%q: got no error, want one", bad)
		}
	}
}
