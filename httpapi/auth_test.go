package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

// written writes a token file.
func written(t testing.TB, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// tokenFile makes a token of each role and a file that names them all.
func tokenFile(t testing.TB, more ...string) (file string, tokens map[httpapi.Role]string) {
	t.Helper()
	lines := append([]string{"# who may use the API", ""}, more...)
	tokens = map[httpapi.Role]string{}
	for _, role := range []httpapi.Role{httpapi.Viewer, httpapi.Operator, httpapi.Admin} {
		token, line, err := httpapi.NewToken("some "+string(role), role)
		if err != nil {
			t.Fatal(err)
		}
		tokens[role] = token
		lines = append(lines, line)
	}
	return written(t, strings.Join(lines, "\n")), tokens
}

func loaded(t testing.TB, file string) *httpapi.Tokens {
	t.Helper()
	tokens, err := httpapi.LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// Nothing is open by oversight: each operation that is described, and all else there is.
func TestEachRoleMayDoWhatItMay(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		file, tokens := tokenFile(t)
		d := serve(t, db, func(c *httpapi.Config) {
			c.Tokens, c.Pprof, c.Settings = loaded(t, file), true, func() any { return struct{}{} }
		})
		for _, path := range fromMemory {
			d.get(path).wantsStatus(t, 200) // before its session is forgotten
		}
		seen := 0
		operations(t, func(method, path string) {
			seen++
			needed := httpapi.Viewer
			switch {
			case method != "GET":
				needed = httpapi.Operator
			case path == "/v1/config", strings.HasPrefix(path, "/debug"):
				needed = httpapi.Admin
			}
			try := func(header http.Header) answer {
				if path == "/v1/watch" {
					return d.do(request{method: "HEAD", path: path, header: header})
				}
				return d.do(request{method: method, path: path, header: header})
			}
			for _, given := range []string{"", "Bearer", "Bearer ", "Bearer x", "Basic " + tokens[httpapi.Admin], "Bearer " + tokens[httpapi.Admin] + "x", tokens[httpapi.Admin]} {
				a := try(http.Header{"Authorization": {given}})
				if a.status != 401 || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
					t.Fatalf("%s %s with %q: got %d", method, path, given, a.status)
				}
			}
			if a := try(http.Header{"Authorization": {"Bearer " + tokens[httpapi.Admin], "Bearer " + tokens[httpapi.Admin]}}); a.status != 401 {
				t.Fatalf("two tokens: got %d", a.status)
			}
			allowed := false
			for _, role := range []httpapi.Role{httpapi.Viewer, httpapi.Operator, httpapi.Admin} {
				allowed = allowed || role == needed
				a := try(bearer(tokens[role]))
				switch {
				case allowed && (a.status == 401 || a.status == 403):
					t.Fatalf("%s %s as %s: got %d %s", method, path, role, a.status, a.body)
				case !allowed:
					if p := a.wants(t, 403, "forbidden"); !strings.Contains(p.Detail, string(needed)) {
						t.Fatalf("%s %s as %s: got %+v, want it to name %s", method, path, role, p, needed)
					}
				}
			}
		})
		if seen < 15 {
			t.Fatalf("got %d operations", seen)
		}
		for _, path := range []string{"/livez/", "/role/leader", "/v1//members"} {
			d.get(path).wants(t, 401, "unauthorized")
		}
		_, by := audits(t, db)
		for _, b := range by {
			if b.Actor != "some operator" && b.Actor != "some admin" {
				t.Fatalf("got %+v, want the name of a token", b)
			}
		}
		if len(by) == 0 {
			t.Fatal("got no audit event")
		}
	})
}

// The log says who was refused what, and who has changed a job.
func TestRefusalsAndJobsAreLogged(t *testing.T) {
	t.Parallel()
	file, tokens := tokenFile(t)
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), func(c *httpapi.Config) { c.Tokens = loaded(t, file) })
	operator := bearer(tokens[httpapi.Operator])
	told := func(what string, q request, status int, want string) {
		t.Helper()
		before := d.log.String()
		d.do(q).wantsStatus(t, status)
		if said := strings.TrimPrefix(d.log.String(), before); !strings.Contains(said, want) {
			t.Errorf("%s: the log got %q, want %s", what, said, want)
		}
	}
	told("no token", request{path: "/v1/members"}, 401, "code=unauthorized")
	told("a viewer's", request{method: "POST", path: "/v1/members/app-7/drain", header: bearer(tokens[httpapi.Viewer])}, 403, "some viewer has viewer")
	told("another host", request{path: "/livez", host: "x.example.org"}, 421, "host=x.example.org")
	told("a page's", request{method: "POST", path: "/v1/members/app-7/drain", header: http.Header{"Origin": {"https://x.example.org"}}}, 403, "code=cross_origin")
	h := d.lock("x")
	h.as = tokens[httpapi.Admin]
	h.put("", "").granted(t)
	told("somebody else's", request{method: "DELETE", path: h.path, header: operator}, 403, `code=not_yours actor="some operator"`)

	const jobs = "/v1/groups/g/jobs"
	d.do(request{method: "PUT", path: "/v1/groups/g", header: operator}).wantsStatus(t, 200)
	told("add", request{method: "POST", path: jobs, body: `{"jobs":[{"key":"a"}]}`, header: operator}, 200, `group=g first=a added=1 of=1 actor="some operator"`)
	told("update", request{method: "PUT", path: jobs + "/a", body: `{}`, header: operator}, 200, `"job updated" group=g key=a actor="some operator"`)
	told("pause", request{method: "POST", path: jobs + "/a/pause", header: operator}, 200, `"job paused"`)
	told("resume", request{method: "POST", path: jobs + "/a/resume", header: operator}, 200, `"job resumed"`)
	told("remove", request{method: "DELETE", path: jobs + "/a", header: operator}, 204, `"job removed"`)
	var page struct{ Events []httpapi.Event }
	if err := json.Unmarshal([]byte(d.do(request{path: "/v1/events?topic=audit", header: operator}).body), &page); err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range page.Events {
		actions = append(actions, e.Action)
		if data := string(e.Data); e.Subject != "g" || !strings.Contains(data, `"actor":"some operator"`) || e.Action != "define" && !strings.Contains(data, `"job":"a"`) {
			t.Errorf("%s: the event got subject %q, %s; want g, its actor and its job", e.Action, e.Subject, data)
		}
	}
	if want := []string{"define", "add", "update", "pause", "resume", "remove"}; !slices.Equal(actions, want) {
		t.Errorf("got events %v, want %v", actions, want)
	}
}

func TestTokensAreReloaded(t *testing.T) {
	file, tokens := tokenFile(t)
	file2, tokens2 := tokenFile(t)
	ring := loaded(t, file)
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), nobody, func(c *httpapi.Config) { c.Tokens = ring })
	with := func(token string) int { return d.do(request{path: "/v1/members", header: bearer(token)}).status }
	if got := with(tokens[httpapi.Viewer]); got != 200 {
		t.Fatalf("got %d, want 200", got)
	}
	if err := os.WriteFile(file, []byte("half a line"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ring.Reload(); err == nil || with(tokens[httpapi.Viewer]) != 200 {
		t.Fatalf("a broken file: got %v, want an error and what was there before", err)
	}
	if err := os.Rename(file2, file); err != nil {
		t.Fatal(err)
	}
	if err := ring.Reload(); err != nil {
		t.Fatal(err)
	}
	if a, b := with(tokens[httpapi.Viewer]), with(tokens2[httpapi.Viewer]); a != 401 || b != 200 {
		t.Fatalf("got %d and %d, want the old token refused and the new one taken", a, b)
	}
}

func TestTokenFilesAreRead(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for line, want := range map[string]string{
		"":                               "names nobody",
		"# nobody":                       "names nobody",
		"ci: viewer: " + hash:            "line 1: it must be NAME",
		"ci: viewer: md5:" + hash:        "sha256:HASH or cert:NAME",
		"ci: root: sha256:" + hash:       "viewer, operator or admin",
		"ci: viewer: sha256:secret":      "64 hexadecimal digits",
		"ci: viewer: sha256:" + "0a0b":   "64 hexadecimal digits",
		"ci: viewer: cert:":              "common name",
		": viewer: sha256:" + hash:       "its name",
		"a: viewer: cert:a\n\nb: viewer": "line 3",
	} {
		_, err := httpapi.LoadTokens(written(t, line))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), hash) {
			t.Errorf("%q: got %v, want %s", line, err, want)
		}
	}
	if _, err := httpapi.LoadTokens("no such file"); err == nil {
		t.Error("no file: got no error")
	}
	loaded(t, written(t, "ci : admin : sha256 : "+hash+" \r\nops: viewer: cert:CN=x: y\n"))
	for _, owner := range []string{"", "a:b", " a", "#a", "a\nb", strings.Repeat("x", 201)} {
		if _, _, err := httpapi.NewToken(owner, httpapi.Viewer); err == nil {
			t.Errorf("a token for %q: got no error", owner)
		}
	}
	if _, _, err := httpapi.NewToken("a", "root"); err == nil {
		t.Error("a token for a role that is none: got no error")
	}
	a, _, _ := httpapi.NewToken("a", httpapi.Viewer)
	b, line, err := httpapi.NewToken("a", httpapi.Viewer)
	if err != nil || a == b || len(b) < 32 || strings.Contains(line, b) {
		t.Errorf("got %s, %s, %s and %v", a, b, line, err)
	}
}

func TestOnlyLoopbackIsServedWithoutAuthentication(t *testing.T) {
	file, _ := tokenFile(t)
	pki := newPKI(t)
	certificates := loaded(t, written(t, "ops: operator: cert:ops"))
	open, tokens := httpapi.Config{}, httpapi.Config{Tokens: loaded(t, file)}
	tls := httpapi.Config{TLS: pki.load("")}
	both := httpapi.Config{TLS: tls.TLS, Tokens: tokens.Tokens}
	mutual := httpapi.Config{TLS: pki.load("VerifyClientCertIfGiven"), Tokens: certificates}
	unverified := httpapi.Config{TLS: tls.TLS, Tokens: certificates}
	for _, cfg := range []httpapi.Config{open, tokens, tls, both, mutual, unverified} {
		for _, good := range []string{"127.0.0.1:7400", "localhost:0", "[::1]:7400"} {
			if err := cfg.CheckListen(good); err != nil {
				t.Errorf("%s: %v", good, err)
			}
		}
		for _, bad := range []string{"7400", ""} {
			if err := cfg.CheckListen(bad); err == nil {
				t.Errorf("%q: got no error, want one", bad)
			}
		}
	}
	for _, address := range []string{":7400", "0.0.0.0:7400", "10.0.0.1:7400", "[::]:7400", "example.org:7400"} {
		for _, cfg := range []httpapi.Config{both, mutual} {
			if err := cfg.CheckListen(address); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
		for i, cfg := range []httpapi.Config{open, tokens, tls, unverified} {
			if err := cfg.CheckListen(address); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
				t.Errorf("%s, %d: got %v, want an error that says what to do", address, i, err)
			}
		}
	}
	if err := fmt.Sprint(unverified.CheckListen(":1")); !strings.Contains(err, "client_auth_type") {
		t.Errorf("got %s", err)
	}
}
