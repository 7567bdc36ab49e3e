package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// daemon is an API that is served on a port of its own.
type daemon struct {
	t       testing.TB
	db      *coordd.DB
	scheme  string // "http://" or "https://"
	address string
	client  *http.Client
	log     *output
	session *heartbeat.Session // nil: it was given others
	stop    func() error       // ends it and waits; may be called again
}

// serve serves the API of one session, app-7, until the test ends.
func serve(t testing.TB, db *coordd.DB, change ...func(*httpapi.Config)) *daemon {
	t.Helper()
	d := &daemon{t: t, db: db, client: &http.Client{Transport: &http.Transport{}}, log: new(output)}
	cfg := httpapi.Config{DB: db, Version: "test", Want: 1, Logger: slog.New(slog.NewTextHandler(d.log, nil))}
	for _, c := range change {
		c(&cfg)
	}
	d.scheme = "http://"
	if cfg.TLS != nil {
		d.scheme = "https://"
	}
	if cfg.Sessions == nil {
		d.session = join(t, db, "app-7")
		cfg.Sessions = func() []*heartbeat.Session { return []*heartbeat.Session{d.session} }
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- httpapi.Serve(ctx, l, cfg) }()
	d.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
		d.client.CloseIdleConnections()
	})
	return d
}

// join joins, and leaves with the test.
func join(t testing.TB, db *coordd.DB, name string, labels ...string) *heartbeat.Session {
	t.Helper()
	cfg := heartbeat.Config{Name: name, Labels: map[string]string{}}
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		cfg.Labels[key] = value
	}
	s, err := heartbeat.Join(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) }) // some tests close the pool under it
	return s
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// request is what is asked; the zero one gets /.
type request struct {
	method, path, body string
	header             http.Header
	host               string
}

func (d *daemon) do(q request) answer {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), q.method, d.scheme+d.address+q.path, strings.NewReader(q.body))
	if err != nil {
		d.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	maps.Copy(r.Header, q.header)
	if q.body != "" && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Host = q.host
	resp, err := d.client.Do(r)
	if err != nil {
		d.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func (d *daemon) get(path string) answer {
	d.t.Helper()
	return d.do(request{path: path})
}

func (d *daemon) post(path string) answer {
	d.t.Helper()
	return d.do(request{method: "POST", path: path})
}

// read gets JSON.
func read[T any](d *daemon, path string) (v T) {
	d.t.Helper()
	a := d.get(path)
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		d.t.Fatalf("%s: got %d, %s, %s (%v)", path, a.status, a.header.Get("Content-Type"), a.body, err)
	}
	return v
}

// wants fails the test unless an answer is a problem of a code.
func (a answer) wants(t testing.TB, status int, code string) httpapi.Problem {
	t.Helper()
	var p httpapi.Problem
	err := json.Unmarshal([]byte(a.body), &p)
	if err != nil || a.status != status || p.Status != status || p.Code != code || p.Title == "" || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("got %d %s %s, want a problem %d %s", a.status, a.header.Get("Content-Type"), a.body, status, code)
	}
	return p
}

// wantsStatus fails the test unless an answer has a status.
func (a answer) wantsStatus(t testing.TB, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("got %d %s, want %d", a.status, a.body, status)
	}
	return a
}

// appended records events about subjects, one transaction each.
func appended(t testing.TB, db *coordd.DB, topic string, subjects ...string) {
	t.Helper()
	for _, s := range subjects {
		err := db.Tx(t.Context(), func(tx coordd.Queries) error {
			return journal.Append(t.Context(), tx, journal.Event{Topic: topic, Subject: s, Action: "happened", Data: `{"a":"<b>"}`})
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// nobody is for a daemon that has no session, so that nothing but requests costs statements.
func nobody(cfg *httpapi.Config) {
	cfg.Sessions = func() []*heartbeat.Session { return nil }
}

// output is a buffer that is written and read at once.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
