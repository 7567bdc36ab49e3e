package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/client"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// serve serves the API of a database until the test ends, and returns its address.
func serve(t *testing.T, cfg httpapi.Config) (address string) {
	t.Helper()
	if cfg.Sessions == nil {
		cfg.Sessions = func() []*heartbeat.Session { return nil }
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- httpapi.Serve(ctx, l, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func connect(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func join(t *testing.T, db *coordd.DB, name string) *heartbeat.Session {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: name, Labels: map[string]string{"zone": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) })
	return s
}

func appended(t *testing.T, db *coordd.DB, topic string, n int) {
	t.Helper()
	err := db.Tx(t.Context(), func(tx coordd.Queries) error {
		var all []journal.Event
		for range n {
			all = append(all, journal.Event{Topic: topic, Subject: "x", Action: "happened", Data: `{"a":1}`})
		}
		return journal.Append(t.Context(), tx, all...)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestADaemonIsAskedAndTold(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		s := join(t, db, "a b/c")
		c := connect(t, client.Config{Addr: serve(t, httpapi.Config{
			DB: db, Version: "test", Sessions: func() []*heartbeat.Session { return []*heartbeat.Session{s} },
			Doctor: func(context.Context) ([]httpapi.Finding, error) {
				return []httpapi.Finding{{Name: "n", Verdict: httpapi.OK, Found: "w"}}, nil
			},
		})})
		members, err := c.Members(ctx, httpapi.Filter{Name: "a b/c", Label: []string{"zone=b"}, State: []string{"alive"}, All: true, Clients: true})
		if err != nil || len(members) != 1 || members[0].ID != s.ID() || members[0].Labels["zone"] != "b" {
			t.Fatalf("members: got %+v and %v", members, err)
		}
		if m, err := c.Member(ctx, "a b/c"); err != nil || m.ID != s.ID() {
			t.Fatalf("member: got %+v and %v", m, err)
		}
		for _, step := range []struct {
			do    func(context.Context, string, string) (httpapi.Member, error)
			state string
		}{{c.Drain, "draining"}, {c.Undrain, "alive"}, {c.Drain, "draining"}, {c.Forget, "condemned"}} {
			if m, err := step.do(ctx, "a b/c", "because"); err != nil || m.State != step.state || m.ID != s.ID() {
				t.Fatalf("%s: got %+v and %v", step.state, m, err)
			}
		}
		page, err := c.Events(ctx, client.Query{After: -1, Limit: 2, Topic: []string{"audit"}})
		if err != nil || len(page.Events) != 2 || !strings.Contains(string(page.Events[1].Data), `"reason":"because"`) || page.Next != page.Events[1].Revision {
			t.Fatalf("events: got %+v and %v", page, err)
		}
		if page, err = c.Events(ctx, client.Query{After: 1000000, Wait: time.Second}); !errors.Is(err, coordd.ErrHistoryLost) {
			t.Fatalf("events that are not there: got %+v and %v", page, err)
		}
		if status, err := c.Status(ctx); err != nil || status.Version != "test" || !status.Database.Reachable || len(status.Sessions) != 1 {
			t.Fatalf("status: got %+v and %v", status, err)
		}
		if findings, err := c.Doctor(ctx); err != nil || len(findings) != 1 || findings[0].Verdict != httpapi.OK {
			t.Fatalf("doctor: got %+v and %v", findings, err)
		}
	})
}

// Errors are what the database would have given, so that exit codes are the same.
func TestErrorsAreThoseOfTheDatabase(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		c := connect(t, client.Config{Addr: serve(t, httpapi.Config{DB: db})})
		join(t, db, "twin")
		join(t, db, "twin")
		gone := join(t, db, "gone")
		if err := gone.Leave(ctx); err != nil {
			t.Fatal(err)
		}
		fails := func(what string, err, want error, code string) {
			t.Helper()
			var p *httpapi.Problem
			if !errors.Is(err, want) || !errors.As(err, &p) || p.Code != code {
				t.Errorf("%s: got %v, want %v and the code %s", what, err, want, code)
			}
		}
		_, err := c.Member(ctx, "nobody")
		fails("nobody", err, coordd.ErrNone, "no_such_member")
		_, err = c.Drain(ctx, "gone", "")
		fails("gone", err, coordd.ErrNone, "wrong_state")
		_, err = c.Drain(ctx, "twin", "")
		fails("twin", err, coordd.ErrInvalid, "ambiguous_name")
		_, err = c.Drain(ctx, "x", strings.Repeat("x", 501))
		fails("a long reason", err, coordd.ErrInvalid, "invalid")
		appended(t, db, "a", 5)
		if _, err := journal.Compact(ctx, db, journal.Retention{Count: 1}); err != nil {
			t.Fatal(err)
		}
		_, err = c.Events(ctx, client.Query{After: 1})
		fails("compacted", err, events.ErrCompacted, "compacted")
		for _, err := range c.Watch(ctx, 1) {
			fails("a watch of what is compacted", err, events.ErrCompacted, "compacted")
		}
		for _, err := range c.Watch(ctx, 1, "no\x00topic") {
			fails("a watch of a topic that is none", err, coordd.ErrInvalid, "invalid")
		}
		db.Pool().Close()
		_, err = c.Members(ctx, httpapi.Filter{})
		var p *httpapi.Problem
		if !errors.As(err, &p) || p.Status < 500 || p.Hint == "" {
			t.Errorf("without a database: got %v", err)
		}
	})
}

func TestWhereThereIsNoDaemon(t *testing.T) {
	ctx := t.Context()
	c := connect(t, client.Config{Addr: "127.0.0.1:1"})
	if _, err := c.Members(ctx, httpapi.Filter{}); !errors.Is(err, client.ErrNoDaemon) || !strings.Contains(err.Error(), "127.0.0.1:1: ") {
		t.Errorf("got %v, want %v and where", err, client.ErrNoDaemon)
	}
	n := 0
	for _, err := range c.Watch(ctx, 0) {
		if n++; !errors.Is(err, client.ErrNoDaemon) {
			t.Errorf("watch: got %v, want %v", err, client.ErrNoDaemon)
		}
	}
	if n != 1 {
		t.Errorf("watch: got %d errors, want one", n)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	if _, err := connect(t, client.Config{Addr: other.URL + "/"}).Status(ctx); err == nil || !strings.Contains(err.Error(), "not as a coordd does") {
		t.Errorf("another server: got %v", err)
	}
	for _, bad := range []client.Config{
		{}, {Addr: "ftp://x"}, {Addr: "http://"}, {Addr: "http://a/b"}, {Addr: "http://a:b@c"}, {Addr: "a?b"}, {Addr: "\x00"},
		{Addr: "db.example.org:7400", Token: "secret"},
	} {
		if _, err := client.New(bad); !errors.Is(err, coordd.ErrInvalid) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: got %v, want %v", bad, err, coordd.ErrInvalid)
		}
	}
}

func TestATokenIsSent(t *testing.T) {
	token, line, err := httpapi.NewToken("a", httpapi.Viewer)
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/tokens"
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := httpapi.LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, httpapi.Config{DB: dbtest.Migrated(t, dbtest.SQLiteFile(t)), Tokens: tokens})
	if _, err := connect(t, client.Config{Addr: address, Token: token}).Members(t.Context(), httpapi.Filter{}); err != nil {
		t.Fatal(err)
	}
	var p *httpapi.Problem
	if _, err := connect(t, client.Config{Addr: address}).Members(t.Context(), httpapi.Filter{}); !errors.As(err, &p) || p.Code != "unauthorized" {
		t.Fatalf("without a token: got %v", err)
	}
	if _, err := connect(t, client.Config{Addr: address, Token: token}).Drain(t.Context(), "x", ""); !errors.As(err, &p) || p.Code != "forbidden" {
		t.Fatalf("as a viewer: got %v", err)
	}
}

// cutter passes connections on to an address and cuts each of them after some bytes of the
// answer.
type cutter struct {
	address string
	cuts    int
	mu      sync.Mutex
}

func cut(t *testing.T, to string, after func(connection int) int64) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{address: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for connection := 0; ; connection++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { c.pass(client, to, after(connection)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return c
}

// pass ends when either side does, or after n bytes of the answer, wherever in a message that is.
func (c *cutter) pass(client net.Conn, to string, n int64) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	var other sync.WaitGroup
	defer other.Wait()
	defer server.Close()
	defer client.Close()
	other.Go(func() {
		io.Copy(server, client)
		server.Close()
	})
	if passed, _ := io.CopyN(client, server, n); passed == n {
		c.mu.Lock()
		c.cuts++
		c.mu.Unlock()
		client.(*net.TCPConn).SetLinger(0) // a reset, so that some of what was sent is lost
	}
}

func (c *cutter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts
}

// A client whose connection is cut at any byte, again and again, sees every event once and in
// order.
func TestAWatchThatIsCutSeesEveryEventOnce(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var begun atomic.Bool // a watch that has never been answered ends with its first error
		between := cut(t, serve(t, httpapi.Config{DB: db}), func(int) int64 {
			if begun.Swap(true) {
				return rand.Int64N(8000)
			}
			return 1000 + rand.Int64N(7000)
		})
		c := connect(t, client.Config{Addr: between.address})
		n := dbtest.Runs(1000)
		var writer sync.WaitGroup
		writer.Go(func() {
			for written, i := 0, 0; written < 2*n; i++ { // of two topics
				few := min(1+i%7, 2*n-written)
				appended(t, db, []string{"a", "b"}[i%2], few)
				written += few
			}
			appended(t, db, "a", 1)
		})
		defer writer.Wait()
		var last, seen int64
		for e, err := range c.Watch(ctx, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; e.Revision != last+1 || string(e.Data) != `{"a":1}` {
				t.Fatalf("got %+v after %d, want the next one", e, last)
			}
			if last = e.Revision; last == int64(2*n+1) {
				break
			}
		}
		if last != int64(2*n+1) || seen != last {
			t.Fatalf("got %d events up to %d, want %d", seen, last, 2*n+1)
		}
		// And of one topic alone, where most revisions are missing.
		var ofA []int64
		begun.Store(false)
		for e, err := range c.Watch(ctx, 0, "a") {
			if err != nil {
				t.Fatal(err)
			}
			if ofA = append(ofA, e.Revision); e.Revision == last {
				break
			}
		}
		all, err := coordd.All(ctx, db.Queries, func(r *int64) []any { return []any{r} }, `select revision from coordd_events where topic = 'a' order by revision`)
		if err != nil || fmt.Sprint(all) != fmt.Sprint(ofA) {
			t.Fatalf("of a topic: got %v (%v), want %v", ofA, err, all)
		}
		if cuts := between.count(); cuts < dbtest.Runs(20) {
			t.Fatalf("got %d cuts, want %d at least", cuts, dbtest.Runs(20))
		}
	})
}

// A watch from now on that is cut before its first event goes on from where it began.
func TestAWatchFromNowOnRemembersWhen(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), dbtest.Patience)
		defer cancel()
		appended(t, db, "a", 3)
		address := serve(t, httpapi.Config{DB: db})
		between := cut(t, address, func(connection int) int64 {
			if connection > 0 {
				return 1 << 40
			}
			return 420 // its header and first message, and the beginning of the first event
		})
		c := connect(t, client.Config{Addr: between.address})
		var writer sync.WaitGroup
		writer.Go(func() {
			for !streaming(t, address) && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			for between.count() == 0 && ctx.Err() == nil {
				appended(t, db, "a", 1)
			}
			appended(t, db, "a", 1)
		})
		defer writer.Wait()
		last := int64(3)
		for e, err := range c.Watch(ctx, -1) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Revision != last+1 {
				t.Fatalf("got %d after %d, want the next one", e.Revision, last)
			}
			if last = e.Revision; between.count() > 0 {
				break
			}
		}
		if between.count() != 1 {
			t.Fatalf("got %d cuts, want 1", between.count())
		}
	})
}

// streaming says whether somebody listens to a daemon.
func streaming(t *testing.T, address string) bool {
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Error(err)
		return true
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return err != nil || strings.Contains(string(b), "coordd_event_streams 1")
}

func TestOtherServersAreNotBelieved(t *testing.T) {
	for name, body := range map[string]string{
		"an id that is none":     "id: x\nevent: change\ndata: {}\n\n",
		"a change that is none":  "id: 1\nevent: change\ndata: {\n\n",
		"a problem that is none": "id: 1\nevent: problem\ndata: {\n\n",
	} {
		served := 0
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if served++; served > 1 {
				w.WriteHeader(http.StatusNotFound)
				json.NewEncoder(w).Encode(httpapi.Problem{Status: 404, Code: "not_found"})
				return
			}
			io.WriteString(w, body)
		}))
		n := 0
		for _, err := range connect(t, client.Config{Addr: other.URL}).Watch(t.Context(), 0) {
			if n++; err == nil {
				t.Errorf("%s: got an event", name)
			}
		}
		if n != 1 {
			t.Errorf("%s: got %d errors, want one", name, n)
		}
		other.Close()
	}
}
