package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestOtherHostsAreRefused(t *testing.T) {
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), nobody, func(c *httpapi.Config) { c.Hosts = []string{"coordd.example.org"} })
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST": 200, "localhost:7400": 200, "127.0.0.1:1": 200, "[::1]:80": 200, "127.0.0.9": 200,
		"coordd.example.org": 200, "Coordd.Example.Org.:443": 200,
		"evil.example": 421, "]127.0.0.1[": 421, "127.0.0.1.evil.example": 421, "10.0.0.1": 421, "x.coordd.example.org": 421,
		"localhost.evil.example": 421, "0.0.0.0": 421, "[::]": 421, "2130706433": 421,
	} {
		for _, path := range []string{"/v1/members", "/livez", "/nothing"} {
			want := want
			if path == "/nothing" && want == 200 {
				want = 404
			}
			a := d.do(request{path: path, host: host})
			if a.status != want {
				t.Errorf("%s of host %s: got %d, want %d", path, host, a.status, want)
			}
			if want == 421 {
				a.wants(t, 421, "unknown_host")
			}
		}
	}
}

// A page of another origin can make a browser send anything that needs no leave of ours; it
// changes nothing, whatever it sends.
func TestAPageOfAnotherOriginChangesNothing(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		for _, header := range []http.Header{
			{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Sec-Fetch-Site": {"x"}},
			{"Origin": {"https://evil.example"}}, {"Origin": {"null"}}, {"Origin": {"http://localhost:1"}},
			{"Origin": {"https://evil.example"}, "Content-Type": {"text/plain"}},
		} {
			for _, o := range []string{"drain", "undrain", "forget"} {
				for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
					a := d.do(request{method: method, path: "/v1/members/app-7/" + o, header: header.Clone()})
					a.wants(t, 403, "cross_origin")
				}
			}
			a := d.do(request{method: "OPTIONS", path: "/v1/members/app-7/drain", header: header})
			for key := range a.header {
				if strings.HasPrefix(key, "Access-Control-") {
					t.Fatalf("got %s: %s, want no leave for other origins", key, a.header.Get(key))
				}
			}
		}
		if m := read[httpapi.Member](d, "/v1/members/app-7"); m.State != "alive" {
			t.Fatalf("got %s, want alive", m.State)
		}
		d.do(request{method: "POST", path: "/v1/members/app-7/drain", header: http.Header{"Sec-Fetch-Site": {"same-origin"}}}).wantsStatus(t, 200)
	})
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), nobody)
	for _, path := range []string{"/", "/v2", "/v1/members/", "/v1/members/a/b", "/role/leader", "/docs", "/schemas/Member.json", "/openapi.yaml"} {
		d.get(path).wants(t, 404, "not_found")
	}
	for _, method := range []string{"DELETE", "PUT", "OPTIONS", "TRACE", "BREW"} {
		d.do(request{method: method, path: "/v1/members"}).wants(t, 405, "method_not_allowed")
	}
	d.get("/v1/members/a/drain").wants(t, 405, "method_not_allowed")
	if a := d.do(request{method: "HEAD", path: "/v1/members"}); a.status != 200 || a.body != "" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("head: got %+v", a)
	}
}

// raw sends bytes as they are and returns the first line of the answer, and how long it took
// until the connection was closed.
func (d *daemon) raw(t *testing.T, pieces ...string) (line string, took time.Duration) {
	t.Helper()
	conn, err := net.Dial("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	began := time.Now()
	for _, p := range pieces {
		io.WriteString(conn, p) // may fail, as the daemon need not read it all
	}
	r := bufio.NewReader(conn)
	line, _ = r.ReadString('\n')
	io.Copy(io.Discard, r)
	return strings.TrimSpace(line), time.Since(began)
}

func TestMalformedAndOversizedRequestsAreRefused(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		const post = "POST /v1/members/app-7/drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
		const get = "GET /v1/members HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
		for name, test := range map[string]struct {
			want   string
			pieces []string
		}{
			"no HTTP":                 {"400", []string{"hello\r\n\r\n"}},
			"no host":                 {"400", []string{"GET / HTTP/1.1\r\n\r\n"}},
			"two hosts":               {"400", []string{"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"}},
			"a bad escape":            {"400", []string{"GET /v1/members/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n"}},
			"two lengths":             {"400", []string{post, "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"}},
			"a negative length":       {"400", []string{post, "Content-Length: -1\r\n\r\n"}},
			"bad chunks":              {"400", []string{post, "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"}},
			"an unknown encoding":     {"501", []string{post, "Transfer-Encoding: rot13\r\n\r\n"}},
			"a long header":           {"431", []string{get, "X: " + strings.Repeat("x", 32<<10) + "\r\n\r\n"}},
			"many headers":            {"431", []string{get, strings.Repeat("X: x\r\n", 8<<10), "\r\n"}},
			"a long line":             {"431", []string{"GET /" + strings.Repeat("x", 32<<10) + " HTTP/1.1\r\n\r\n"}},
			"a body that is said big": {"413", []string{post, "Content-Length: 1000000\r\n\r\n"}},
			"a body that gets big":    {"413", []string{post, "Transfer-Encoding: chunked\r\n\r\n", strings.Repeat("400\r\n"+strings.Repeat(" ", 1024)+"\r\n", 100), "0\r\n\r\n"}},
			"a body where none is":    {"200", []string{get, "Content-Length: 2\r\n\r\n{}"}},
			"a big one where none is": {"413", []string{get, "Content-Length: 1000000\r\n\r\n"}},
		} {
			line, took := d.raw(t, test.pieces...)
			if !strings.HasPrefix(line, "HTTP/1.1 "+test.want) {
				t.Errorf("%s: got %s, want %s", name, line, test.want)
			}
			if took > 20*time.Second {
				t.Errorf("%s: took %v", name, took)
			}
		}
		if m := read[httpapi.Member](d, "/v1/members/app-7"); m.State != "alive" {
			t.Fatalf("got %s, want alive", m.State)
		}
	})
}

func TestSlowRequestsAreCutOff(t *testing.T) {
	t.Parallel()
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), nobody)
	for name, sent := range map[string]string{
		"half a header": "GET /v1/members HTTP/1.1\r\nHost: localhost\r\nX: ",
		"half a body":   "POST /v1/members/app-7/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
		"no body":       "GET /v1/members HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
		"nothing":       "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			line, took := d.raw(t, sent)
			if took > 30*time.Second {
				t.Errorf("got %q after %v, want the connection closed sooner", line, took)
			}
			if name == "half a body" && !strings.Contains(line, "408") {
				t.Errorf("got %q, want 408", line)
			}
		})
	}
}

// A connection on which a request is slow holds no other up.
func TestManySlowRequestsHoldNobodyUp(t *testing.T) {
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), nobody)
	for range 100 {
		conn, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "POST /v1/members/app-7/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
	}
	began := time.Now()
	d.get("/v1/members").wantsStatus(t, 200)
	if took := time.Since(began); took > 3*time.Second {
		t.Fatalf("another request took %v", took)
	}
}

// A job with the largest payload comes through however its JSON is escaped, and no body is so large
// that it need not be refused.
func TestAJobWithTheLargestPayloadIsTaken(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		send := func(method, path, body string) answer {
			return d.do(request{method: method, path: path, body: body, header: http.Header{"Content-Type": {"application/json"}}})
		}
		send("PUT", "/v1/groups/g", `{"slots":10}`).wantsStatus(t, 200)
		for i, char := range []string{"x", `\u0001`} { // a byte each
			payload := strings.Repeat(char, 64<<10)
			key := fmt.Sprintf("a%%2F%d", i)
			send("POST", "/v1/groups/g/jobs", `{"jobs":[{"key":"a/`+fmt.Sprint(i)+`","payload":"`+payload+`"}]}`).wantsStatus(t, 200)
			send("PUT", "/v1/groups/g/jobs/"+key, `{"weight":2,"payload":"`+payload+`"}`).wantsStatus(t, 200)
			if job := read[httpapi.Job](d, "/v1/groups/g/jobs/"+key); len(job.Payload) != 64<<10 || job.Weight != 2 {
				t.Errorf("got %d bytes of payload and weight %d, want %d and 2", len(job.Payload), job.Weight, 64<<10)
			}
			send("POST", "/v1/groups/g/jobs", `{"jobs":[{"key":"b","payload":"x`+payload+`"}]}`).wants(t, 422, "invalid")
		}
		large := strings.Repeat(" ", 512<<10+1)
		send("POST", "/v1/groups/g/jobs", large).wants(t, 413, "too_large")
		send("PUT", "/v1/groups/g/jobs/b", large).wants(t, 413, "too_large")
		for _, path := range []string{"/v1/groups/g", "/v1/groups/g/jobs/b/pause", "/v1/groups/g/stream/jobs/done"} {
			send("POST", path, large[:64<<10+1]).wants(t, 413, "too_large")
		}
	})
}
