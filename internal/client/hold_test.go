package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/client"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/lock"
)

// daemon serves the API of a session, which leaves with the test, and returns its address.
func daemon(t *testing.T, db *coordd.DB, name string) (address string, s *heartbeat.Session) {
	t.Helper()
	s = join(t, db, name)
	return serve(t, httpapi.Config{DB: db, Sessions: func() []*heartbeat.Session { return []*heartbeat.Session{s} }}), s
}

func hold(t *testing.T, c *client.Client, want client.Want) *client.Held {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), dbtest.Patience)
	defer cancel()
	h, err := c.Hold(ctx, want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Release(context.Background()) })
	return h
}

func TestClientsTakeTurns(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		address, _ := daemon(t, db, "a")
		other, _ := daemon(t, db, "b")
		for _, want := range []client.Want{{Lock: "a/b ä%", TTL: 5 * time.Second}, {Election: "a/b ä%", Value: "http://x", Priority: 2}} {
			var inside atomic.Int64
			var last int64
			var all sync.WaitGroup
			for i := range 4 {
				c := connect(t, client.Config{Addr: []string{address, other}[i%2]})
				all.Go(func() {
					for range 3 {
						h, err := c.Hold(t.Context(), want)
						if err != nil {
							t.Error(err)
							return
						}
						if n := inside.Add(1); n != 1 || h.Err() != nil {
							t.Errorf("got %d inside, %v", n, h.Err())
						}
						if token := h.Token(); token <= atomic.SwapInt64(&last, token) {
							t.Errorf("got the token %d after a higher one", token)
						}
						time.Sleep(20 * time.Millisecond)
						inside.Add(-1)
						if err := h.Release(t.Context()); err != nil || !errors.Is(h.Err(), client.ErrReleased) {
							t.Errorf("released: got %v, %v", err, h.Err())
						}
					}
				})
			}
			all.Wait()
		}
	})
}

// What is held outlives what the first answer promised, as it is renewed; and is seen by others.
func TestWhatIsHeldIsRenewed(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		address, s := daemon(t, db, "a")
		c := connect(t, client.Config{Addr: address})
		most := dbtest.Stretch(3 * time.Second)
		held := hold(t, c, client.Want{Lock: "x", TTL: most})
		led := hold(t, c, client.Want{Election: "x", TTL: most, Value: "v"})
		for end := time.Now().Add(2 * most); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if held.Err() != nil || led.Err() != nil || held.Remaining() > most {
				t.Fatalf("got %v (%v left), %v", held.Err(), held.Remaining(), led.Err())
			}
		}
		l, err := c.Lock(t.Context(), "x")
		if err != nil || len(l.Holders) != 1 || l.Holders[0].MemberID != s.ID() || held.Member() != s.ID() || l.Token != held.Token() {
			t.Fatalf("got %+v and %v", l, err)
		}
		e, err := c.Election(t.Context(), "x")
		if err != nil || e.LeaderID != s.ID() || e.Value != "v" || e.Term != led.Token() {
			t.Fatalf("got %+v and %v", e, err)
		}
	})
}

// Who is asked to give up what it holds hears of it, from whom and why.
func TestWhatIsAskedForIsGivenUp(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		address, s := daemon(t, db, "a")
		c := connect(t, client.Config{Addr: address})
		held, led := hold(t, c, client.Want{Lock: "x"}), hold(t, c, client.Want{Election: "x"})
		var obeying sync.WaitGroup
		for _, h := range []*client.Held{held, led} {
			obeying.Go(func() {
				<-h.Context().Done()
				if err := h.Release(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
		}
		if err := c.ReleaseLock(t.Context(), "x", httpapi.Ask{Reason: "it hangs", Within: 30 * time.Second}); err != nil {
			t.Fatal(err)
		}
		if err := c.Resign(t.Context(), "x", httpapi.Ask{Reason: "too slow", Within: 30 * time.Second}); err != nil {
			t.Fatal(err)
		}
		obeying.Wait()
		for h, why := range map[*client.Held]string{held: "it hangs", led: "too slow"} {
			var by *lock.RequestedError
			if err := context.Cause(h.Context()); !errors.Is(err, coordd.ErrLost) || !errors.As(err, &by) || by.Reason != why {
				t.Errorf("got %v, want to be told %s", err, why)
			}
		}
		if !s.Valid() {
			t.Error("the daemon's session was lost")
		}
	})
}

// Who waits in vain is told who has it, and leaves no place behind.
func TestWhoWaitsInVainIsTold(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		address, _ := daemon(t, db, "a")
		c := connect(t, client.Config{Addr: address})
		hold(t, c, client.Want{Lock: "x"})
		for _, patience := range []time.Duration{time.Millisecond, 800 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			h, err := c.Hold(ctx, client.Want{Lock: "x"})
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v and %v", h, err)
			}
		}
		var held *lock.HeldError
		if _, err := c.Hold(t.Context(), client.Want{Lock: "x", NoWait: true}); !errors.As(err, &held) || held.Member != "a" {
			t.Fatalf("without waiting: got %v", err)
		}
		dbtest.Eventually(t, "no place in the queue", func() bool {
			l, err := c.Lock(t.Context(), "x")
			return err == nil && len(l.Waiters) == 0
		})
	})
}

// A right on this host is free as soon as its connection has gone.
func TestARightOfThisHostIsTied(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		address, _ := daemon(t, db, "a")
		h := hold(t, connect(t, client.Config{Addr: address}), client.Want{Lock: "x", TTL: time.Minute})
		if err := h.Connection().(net.Conn).Close(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		next := hold(t, connect(t, client.Config{Addr: address}), client.Want{Lock: "x"})
		if took := time.Since(began); took > 30*time.Second || next.Token() <= h.Token() {
			t.Fatalf("got the token %d after %v", next.Token(), took)
		}
		dbtest.Eventually(t, "who held it knows", func() bool { return errors.Is(h.Err(), coordd.ErrLost) })
		if !strings.Contains(h.Err().Error(), "the connection has ended to which it was tied") {
			t.Fatalf("got %v", h.Err())
		}
	})
}

// A tunnel on this host may end a connection whose client lives. What is held through one ends by
// the clock of its holder, before another has it.
func TestARightThroughATunnelIsNotTied(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		address, _ := daemon(t, db, "a")
		between, cut := dbtest.Relay(t, "127.0.0.1", strings.TrimPrefix(address, "http://"), 0)
		h := hold(t, connect(t, client.Config{Addr: between}), client.Want{Lock: "x", TTL: 3 * time.Second})
		if h.Connection() != nil {
			t.Error("it is tied")
		}
		cut()
		next := hold(t, connect(t, client.Config{Addr: address}), client.Want{Lock: "x"})
		if left := h.Remaining(); left > 0 || next.Token() <= h.Token() {
			t.Fatalf("another has it with the token %d, and it counts on it for %v more", next.Token(), left)
		}
	})
}

// scripted is a daemon that says what a test wants it to.
func scripted(t *testing.T, answer http.HandlerFunc) *client.Client {
	t.Helper()
	other := httptest.NewServer(answer)
	t.Cleanup(other.Close)
	return connect(t, client.Config{Addr: other.URL})
}

func grants(w http.ResponseWriter, token int64, valid time.Duration) {
	json.NewEncoder(w).Encode(httpapi.Grant{Token: token, ValidMS: valid.Milliseconds()})
}

func refuses(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(httpapi.Problem{Status: status, Code: code, Title: code})
}

// A promise counts from the sending: what the answer takes is lost. What was had after a wait is renewed before anybody counts on it.
func TestAPromiseCountsFromTheSending(t *testing.T) {
	t.Parallel()
	const promised, grain = 2 * time.Second, 20 * time.Millisecond // of two clocks
	var asked atomic.Int64
	var renewal atomic.Value
	c := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case r.Method == http.MethodDelete:
		case n == 1:
			if wait := r.URL.Query().Get("wait"); wait != "30s" || r.URL.Query().Get("tie") != r.RemoteAddr {
				t.Errorf("first: got %s", r.URL)
			}
			time.Sleep(300 * time.Millisecond)
			grants(w, 7, time.Minute)
		case n == 2:
			renewal.Store(time.Now())
			if r.Header.Get("If-Match") != `"7"` || r.URL.Query().Has("wait") {
				t.Errorf("then: got %s, %v", r.URL, r.Header)
			}
			time.Sleep(300 * time.Millisecond)
			grants(w, 7, promised)
		default:
			<-r.Context().Done() // and then nothing
		}
	})
	began := time.Now()
	h := hold(t, c, client.Want{Lock: "x"})
	most := renewal.Load().(time.Time).Add(promised + grain)
	now := time.Now()
	if left := h.Remaining(); h.Token() != 7 || left > most.Sub(now) {
		t.Fatalf("got token %d and %v left, want 7 and %v at the most", h.Token(), left, most.Sub(now))
	}
	<-h.Context().Done()
	if took := time.Since(began); took < promised-grain {
		t.Fatalf("it ended %v after it was asked for, want %v", took, promised)
	}
	if !errors.Is(h.Err(), coordd.ErrLost) || h.Remaining() > 0 {
		t.Fatalf("got %v, %v left", h.Err(), h.Remaining())
	}
}

// Who waits keeps its tie through any number of connections that its daemon ends: the first request after each
// names the old one's end.
func TestATieOutlastsReconnections(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	c := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case r.Method == http.MethodDelete:
		case r.URL.Query().Get("tie") != r.RemoteAddr:
			refuses(w, 400, "tie_refused")
		case n < 6:
			w.Header().Set("Connection", "close")
			refuses(w, 409, "held")
		default:
			grants(w, 7, time.Minute)
		}
	})
	h := hold(t, c, client.Want{Lock: "x"})
	if n := asked.Load(); n < 7 || h.Connection() == nil {
		t.Fatalf("after %d requests it is not tied", n)
	}
}

// A DELETE may come when what it is about was had anew under the same id. So nothing is.
func TestAnIdThatWasGivenUpIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	var mu sync.Mutex
	gone := map[string]bool{}
	c := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch n := asked.Add(1); {
		case r.Method == http.MethodDelete:
			gone[r.URL.Path] = true
		case gone[r.URL.Path]:
			t.Errorf("request %d: %s was given up", n, r.URL.Path)
			refuses(w, 403, "forbidden")
		case n == 1, n == 4: // before it has heard of a token, and after
			refuses(w, 410, "lost")
		case n == 3:
			grants(w, 6, time.Minute)
		default:
			grants(w, 7, time.Minute)
		}
	})
	hold(t, c, client.Want{Lock: "x"})
	mu.Lock()
	defer mu.Unlock()
	if len(gone) != 2 {
		t.Fatalf("got %v given up, want two", gone)
	}
}

// Refusals that pass end neither a wait nor what is held; others do.
func TestWhatPassesIsAskedAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	c := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case r.Method == http.MethodDelete:
			refuses(w, 404, "no_such_grant")
		case n == 1:
			refuses(w, 400, "tie_refused")
		case r.URL.Query().Has("tie"):
			refuses(w, 500, "internal")
		case n == 2:
			refuses(w, 503, "suspended")
		case n == 3:
			refuses(w, 409, "held")
		case n == 4:
			grants(w, 6, time.Second) // and before it is renewed:
		case n == 5:
			refuses(w, 410, "lost")
		case n == 8, n == 9:
			refuses(w, 503, "database_slow")
		case n < 12:
			grants(w, 7, 3*time.Second)
		default:
			grants(w, 8, 3*time.Second) // which is not what it had
		}
	})
	h := hold(t, c, client.Want{Lock: "x"})
	<-h.Context().Done()
	if n := asked.Load(); n < 12 || !errors.Is(h.Err(), coordd.ErrLost) || !strings.Contains(h.Err().Error(), "another token") {
		t.Fatalf("after %d requests: got %v", n, h.Err())
	}
	if err := h.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, refused := range []struct {
		status int
		code   string
	}{{403, "forbidden"}, {422, "invalid"}, {409, "held_elsewhere"}} {
		c := scripted(t, func(w http.ResponseWriter, _ *http.Request) { refuses(w, refused.status, refused.code) })
		var p *httpapi.Problem
		if _, err := c.Hold(t.Context(), client.Want{Lock: "x"}); !errors.As(err, &p) || p.Code != refused.code {
			t.Errorf("%s: got %v", refused.code, err)
		}
	}
	if _, err := connect(t, client.Config{Addr: "127.0.0.1:1"}).Hold(t.Context(), client.Want{Lock: "x"}); !errors.Is(err, client.ErrNoDaemon) {
		t.Errorf("without a daemon: got %v", err)
	}
	for _, bad := range []client.Want{{}, {Lock: "x", Election: "x"}, {Election: "x", Value: strings.Repeat("%", 5000)}} {
		if _, err := c.Hold(t.Context(), bad); !errors.Is(err, coordd.ErrInvalid) {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
}
