package httpapi

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

// inVirtualTime serves a request in a bubble, and has it given up when the test ends.
type inVirtualTime struct {
	httptest.ResponseRecorder
	mu     sync.Mutex
	buf    bytes.Buffer
	cancel func()
	ended  chan struct{}
}

func ask(t *testing.T, cfg Config, path string, header http.Header) *inVirtualTime {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	v := &inVirtualTime{ResponseRecorder: *httptest.NewRecorder(), cancel: cancel, ended: make(chan struct{})}
	r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
	r.Host, r.Header = "localhost", header
	handler := newAPI(cfg).handler
	go func() {
		defer close(v.ended)
		handler.ServeHTTP(v, r)
	}()
	t.Cleanup(func() {
		cancel()
		<-v.ended
	})
	return v
}

func (v *inVirtualTime) Write(b []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.buf.Write(b)
}

func (v *inVirtualTime) told() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.buf.String()
}

func TestAQuietStreamPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		v := ask(t, Config{DB: db}, "/v1/watch", http.Header{})
		time.Sleep(10*Ping + time.Second)
		if got, want := v.told(), "retry: 1000\nid: 0\n\n"+strings.Repeat(": ping\n\n", 10); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

// A token that was taken back ends the streams that it opened.
func TestAStreamEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		token, line, err := NewToken("a", Viewer)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "tokens")
		write := func(line string) {
			if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(line)
		tokens, err := LoadTokens(file)
		if err != nil {
			t.Fatal(err)
		}
		v := ask(t, Config{DB: db, Tokens: tokens}, "/v1/watch", http.Header{"Authorization": {"Bearer " + token}})
		time.Sleep(Ping + time.Second)
		write("b: viewer: cert:b")
		if err := tokens.Reload(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(Ping)
		select {
		case <-v.ended:
		default:
			t.Fatalf("it goes on: %q", v.told())
		}
	})
}

// An outage that lasts ends no stream: it goes on pinging, and then where it was.
func TestAStreamPingsThroughAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, shaky, tap := dbtest.VirtualTime(t)
		v := ask(t, Config{DB: shaky}, "/v1/watch", http.Header{})
		time.Sleep(time.Second)
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		time.Sleep(time.Hour)
		tap.Disturb(nil)
		err := db.Tx(t.Context(), func(tx coordd.Queries) error {
			return journal.Append(t.Context(), tx, journal.Event{Topic: "a", Subject: "x", Action: "happened", Data: "{}"})
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := v.told(); strings.Count(got, "ping") < 240 || strings.Count(got, "id: 1\nevent: change\n") != 1 {
			t.Fatalf("got %q", got)
		}
	})
}

// A request that waits costs a statement a second and ends when its time is over.
func TestALongPollWaitsAsLongAsItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		began := time.Now()
		v := ask(t, Config{DB: db}, "/v1/events?after=0&wait=30s", http.Header{})
		<-v.ended
		if took := time.Since(began); took < maxWait || took > maxWait+time.Second || v.told() != `{"events":[],"next":0}`+"\n" {
			t.Fatalf("got %s after %v", v.told(), took)
		}
		if n := tap.Statements(); n > 40 {
			t.Fatalf("got %d statements in %v", n, maxWait)
		}
	})
}

// The doctor examines once at a time: who comes second waits, and not for ever.
func TestOneDoctorAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		running, most := 0, 0
		a := newAPI(Config{DB: db, Doctor: func(ctx context.Context) ([]Finding, error) {
			running++
			most = max(most, running)
			defer func() { running-- }()
			<-ctx.Done()
			return nil, nil
		}})
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { _, _ = a.doctor(t.Context(), nil) })
		}
		all.Wait()
		if most != 1 {
			t.Fatalf("got %d at once, want 1", most)
		}
	})
}

// The same without a network and another process's turns: what the daemon itself takes.
func BenchmarkHandlers(b *testing.B) {
	db := dbtest.Migrated(b, dbtest.SQLiteFile(b))
	session, err := heartbeat.Join(b.Context(), db, heartbeat.Config{Name: "a"})
	if err != nil {
		b.Fatal(err)
	}
	defer session.Leave(context.Background())
	handler := newAPI(Config{DB: db, Want: 1, Sessions: func() []*heartbeat.Session { return []*heartbeat.Session{session} }}).handler
	db.Pool().Close()
	for _, path := range []string{"/livez", "/readyz", "/role/member", "/role/leader/x"} {
		b.Run(path[1:], func(b *testing.B) {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = "localhost"
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				handler.ServeHTTP(httptest.NewRecorder(), r)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, "p99-µs")
		})
	}
}
