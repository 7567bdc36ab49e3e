package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/dbtest"
)

// server is a daemon with its API.
type server struct {
	*process
	name, address string
	tls           *tls.Config      // nil: it serves HTTP
	begin         func(*testing.T) // again, once it has ended
}

// startServer starts a daemon, which publishes NAME.example.org, and waits until its session is valid.
func startServer(t *testing.T, dsn, name string, args ...string) *server {
	t.Helper()
	s := &server{name: name, address: freeAddress(t)}
	s.start(t, dsn, args...)
	return s
}

func (s *server) start(t *testing.T, dsn string, args ...string) {
	t.Helper()
	s.begin = func(t *testing.T) {
		s.process = start(t, dsn, append([]string{
			"run", "--name", s.name, "--address", s.name + ".example.org", "--ttl", dbtest.Stretch(*ttl).String(), "--listen", s.address}, args...)...)
	}
	s.begin(t)
	dbtest.Eventually(t, s.name+" is a member", func() bool { return s.status(t, "/role/member") == http.StatusOK })
}

// status is that of the daemon's answer to a GET; 0: there is none in a second.
func (s *server) status(t *testing.T, path string) int {
	t.Helper()
	status, _ := s.get(t, path)
	return status
}

func (s *server) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	scheme, transport := "http://", &http.Transport{DisableKeepAlives: true} // the process may be killed
	if s.tls != nil {
		scheme, transport.TLSClientConfig = "https://", s.tls
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+s.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: time.Second, Transport: transport}).Do(r)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(b)
}

func (s *server) leads(t *testing.T, election string) bool {
	t.Helper()
	return s.status(t, "/role/leader/"+url.PathEscape(election)) == http.StatusOK
}

// leader waits until one of the servers says that it leads, and the others that they do not.
func leader(t *testing.T, election string, servers []*server) (leads *server) {
	t.Helper()
	dbtest.Eventually(t, "one leads "+election, func() bool {
		leads = nil
		for _, s := range servers {
			if s.leads(t, election) {
				if leads != nil {
					return false // it was the other a moment ago
				}
				leads = s
			}
		}
		return leads != nil
	})
	return leads
}

// without are those of the servers that are not the one.
func without(gone *server, servers []*server) []*server {
	return slices.DeleteFunc(slices.Clone(servers), func(s *server) bool { return s == gone })
}

// Daemons elect a leader among them, who is followed when it was killed, frozen, asked to resign or to drain, or has left.
func TestDaemonsElectALeader(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		var servers []*server
		for i := range 5 {
			servers = append(servers, startServer(t, dsn, fmt.Sprint("app-", i), "--elect", "web", "--elect", "a/b ä"))
		}
		leader(t, "a/b ä", servers)
		last := int64(0)
		next := func() *server {
			t.Helper()
			l := leader(t, "web", servers)
			var body string
			var e httpapi.Election
			dbtest.Eventually(t, "an answer", func() bool {
				var status int
				status, body = l.get(t, "/v1/elections/web")
				e = httpapi.Election{}
				return status == http.StatusOK && json.Unmarshal([]byte(body), &e) == nil
			})
			if e.Leader != l.name || e.Address != l.name+".example.org" || e.Value != e.Address || e.Client != "" || e.Term <= last {
				t.Fatalf("got %s after term %d, want %s with its address", body, last, l.name)
			}
			dbtest.Eventually(t, "its log says so", func() bool { return strings.Contains(l.output.String(), "msg=elected election=web") })
			last = e.Term
			return l
		}
		first := next()
		dbtest.Eventually(t, "an answer of another election", func() bool {
			status := first.status(t, "/role/leader/other")
			if status == http.StatusOK {
				t.Fatal("it leads another election")
			}
			return status == http.StatusServiceUnavailable
		})

		first.signal(t, syscall.SIGKILL)
		servers = without(first, servers)
		second := next()

		second.signal(t, syscall.SIGSTOP)
		servers = without(second, servers)
		third := next()
		second.signal(t, syscall.SIGCONT)
		dbtest.Eventually(t, "who was frozen knows it", func() bool {
			return second.status(t, "/role/leader/web") == http.StatusServiceUnavailable
		})

		if code, _, stderr := run(t, "drain", third.name, "--addr", third.address); code != exitOK {
			t.Fatal(stderr)
		}
		servers = without(third, servers)
		fourth := next()
		if third.leads(t, "web") {
			t.Fatal("who drains leads")
		}

		if code, _, stderr := run(t, "resign", "web", "--addr", fourth.address); code != exitOK {
			t.Fatal(stderr)
		}
		fifth := next() // of those it may be the same again
		fifth.signal(t, syscall.SIGTERM)
		if code := fifth.exit(t); code != exitOK {
			t.Fatalf("got exit code %d, want %d", code, exitOK)
		}
		servers = append(without(fifth, servers), second)
		next()
	})
}

// Without its database a leader leads for as long as it may, which it says without asking anybody.
func TestALeaderSaysWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	db := dbtest.StartPostgres(t, dbtest.Extra{})
	dbtest.Migrated(t, db.DSN())
	s := startServer(t, db.DSN(), "app-1", "--elect", "web")
	leader(t, "web", []*server{s})
	db.Pause()
	defer db.Resume()
	over, led := clock.Now()+dbtest.Stretch(*ttl), 0
	for {
		asked := clock.Now()
		status := s.status(t, "/role/leader/web")
		switch {
		case status == http.StatusOK && asked >= over:
			t.Fatalf("asked %v after its right has ended: got %d", asked-over, status)
		case status == http.StatusOK:
			led++
		case status != 0 && status != http.StatusServiceUnavailable:
			t.Fatalf("got %d", status)
		}
		if status == http.StatusServiceUnavailable {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("it said %d times that it leads on, and %v before its TTL had passed that it does not", led, over-clock.Now())
	db.Resume()
	leader(t, "web", []*server{s})
}

func TestElectionsAreChecked(t *testing.T) {
	t.Chdir(t.TempDir())
	refused(t, exitUsage, "election name", "run", "--elect", " x")
	refused(t, exitUsage, "is said twice", "run", "--elect", "x", "--elect", "x")
	refused(t, exitUsage, "needs the name", "run", "--elect", "")
	t.Setenv("COORDD_ELECT", "x,y,x")
	refused(t, exitUsage, "is said twice", "config", "check")
}
