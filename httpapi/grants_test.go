package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/lock"
)

// holder is a client that holds something by a daemon.
type holder struct {
	d    *daemon
	path string
	as   string // a token; empty: none
}

func (d *daemon) lock(name string) holder {
	return holder{d: d, path: "/v1/locks/" + url.PathEscape(name) + "/grants/" + uuid.NewString()}
}

func (d *daemon) campaign(name string) holder {
	return holder{d: d, path: "/v1/elections/" + url.PathEscape(name) + "/campaigns/" + uuid.NewString()}
}

// by is the same client at another daemon.
func (h holder) by(d *daemon) holder { h.d = d; return h }

func (h holder) client() string { return h.path[strings.LastIndex(h.path, "/")+1:] }

func (h holder) do(method, query, etag string) answer {
	h.d.t.Helper()
	header := http.Header{}
	if etag != "" {
		header.Set("If-Match", etag)
	}
	if h.as != "" {
		header.Set("Authorization", "Bearer "+h.as)
	}
	return h.d.do(request{method: method, path: h.path + query, header: header})
}

func (h holder) put(query, etag string) answer { h.d.t.Helper(); return h.do("PUT", query, etag) }
func (h holder) remove() answer                { h.d.t.Helper(); return h.do("DELETE", "", "") }

// grant is what a client reads of an answer, of whatever kind.
type grant struct {
	Name, UUID, State, Member, Value string
	Token, Term                      int64
	ValidMS                          int64 `json:"valid_ms"`
	TTLMS                            int64 `json:"ttl_ms"`
	Shared, Tied                     bool
	Permits, Priority                int
}

// granted reads an answer that grants something, with its headers.
func (a answer) granted(t testing.TB) (g grant) {
	t.Helper()
	a.wantsStatus(t, 200)
	if err := json.Unmarshal([]byte(a.body), &g); err != nil {
		t.Fatal(err)
	}
	token := g.Token + g.Term // it has one of them
	if a.header.Get("Coordd-Fencing-Token") != fmt.Sprint(token) || a.header.Get("ETag") != fmt.Sprintf(`"%d"`, token) || token == 0 {
		t.Fatalf("got %+v with the headers %v, want them to have its token", g, a.header)
	}
	return g
}

func TestAClientHoldsALock(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		const name = "a/b ä%2F%"
		first, second := d.lock(name), d.lock(name)
		first.do("GET", "", "").wants(t, 404, "no_such_grant")
		a := first.put("?ttl=20s", "")
		g, tag := a.granted(t), a.header.Get("ETag")
		if g.Name != name || g.UUID != first.client() || g.State != "held" || g.TTLMS != 20000 || g.ValidMS < 1000 || g.ValidMS > 5640 || g.Member != d.session.ID() {
			t.Fatalf("got %+v", g)
		}
		l := read[httpapi.Lock](d, "/v1/locks/"+url.PathEscape(name))
		if l.Holder != "app-7" || l.Holders[0].Client != first.client() || l.Holders[0].Token != g.Token {
			t.Fatalf("as others see it: got %+v", l)
		}
		for _, etag := range []string{"", tag} {
			if again := first.put("", etag).granted(t); again.Token != g.Token || again.TTLMS != 10000 {
				t.Fatalf("renewed: got %+v", again)
			}
		}
		if shown := first.do("GET", "", "").granted(t); shown.Token != g.Token || shown.ValidMS != 0 {
			t.Fatalf("shown: got %+v, want no promise", shown)
		}
		for _, test := range [][2]string{{"", "1"}, {"?wait=300ms", "0"}, {"", "0"}} { // the last one has its place
			query, after := test[0], test[1]
			a := second.put(query, "")
			p := a.wants(t, 409, "held")
			if p.Holder == nil || p.Holder.Client != first.client() || p.Holder.Token != g.Token || a.header.Get("Retry-After") != after || a.header.Get("Coordd-Fencing-Token") != "" {
				t.Fatalf("busy: got %+v with %v", p, a.header)
			}
		}
		if a := second.do("GET", "", "").wantsStatus(t, 200); !strings.Contains(a.body, `"state":"waiting","token":0`) || a.header.Get("ETag") != "" {
			t.Fatalf("who waits: got %+v", a)
		}
		first.remove().wantsStatus(t, 204)
		first.remove().wants(t, 404, "no_such_grant")
		next := second.put("?wait=30s", "").granted(t)
		if next.Token <= g.Token {
			t.Fatalf("got %+v after %+v", next, g)
		}
		first.put("", tag).wants(t, 410, "lost")
		second.put("", tag).wants(t, 410, "lost")
		second.put("", `"x"`).wants(t, 422, "invalid")
		second.do("DELETE", "", tag).wants(t, 410, "lost")
		second.do("DELETE", "", fmt.Sprintf(`"%d"`, next.Token)).wantsStatus(t, 204)
	})
}

func TestAClientLeads(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		first, second := d.campaign("x"), d.campaign("x")
		g := first.put("?priority=3&value=http%3A%2F%2Fhere", "").granted(t)
		if g.Term == 0 || g.Value != "http://here" || g.Priority != 3 || g.State != "held" {
			t.Fatalf("got %+v", g)
		}
		if e := d.leads("x", "app-7"); e.Client != first.client() || e.Value != "http://here" || e.Term != g.Term {
			t.Fatalf("as others see it: got %+v", e)
		}
		if p := second.put("?wait=200ms", "").wants(t, 409, "held"); p.Holder == nil || p.Holder.Client != first.client() {
			t.Fatalf("got %+v", p)
		}
		first.put("?priority=3&value=there", "").granted(t)
		if e := d.leads("x", "app-7"); e.Value != "there" || e.Term != g.Term {
			t.Fatalf("with a new value: got %+v", e)
		}
		first.put("?priority=4", "").wants(t, 400, "other_terms")
		first.remove().wantsStatus(t, 204)
		if next := second.put("?wait=30s", "").granted(t); next.Term <= g.Term {
			t.Fatalf("got %+v after %+v", next, g)
		}
		// It is a session like any other's that leads, and resigns when it is asked to.
		var asking sync.WaitGroup
		asking.Go(func() {
			d.do(request{method: "POST", path: "/v1/elections/x/resign", body: `{"reason":"new kernel"}`}).wantsStatus(t, 200)
		})
		var p httpapi.Problem
		dbtest.Eventually(t, "it is told", func() bool {
			a := second.put("", "")
			if a.status == 200 {
				return false
			}
			p = a.wants(t, 410, "requested")
			return true
		})
		if p.By != "loopback" || p.Reason != "new kernel" {
			t.Fatalf("got %+v", p)
		}
		second.remove().wantsStatus(t, 204)
		asking.Wait()
	})
}

func TestClientsShareALock(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		a, b, c := d.lock("x"), d.lock("x"), d.lock("x")
		first, second := a.put("?permits=2", "").granted(t), b.put("?permits=2", "").granted(t)
		if first.Permits != 2 || second.Token <= first.Token {
			t.Fatalf("got %+v and %+v", first, second)
		}
		if p := c.put("?permits=2", "").wants(t, 409, "held"); p.Sharing != 2 || p.Holder != nil {
			t.Fatalf("got %+v", p)
		}
		a.put("", "").wants(t, 400, "other_terms")
		a.put("?shared=true", "").wants(t, 400, "other_terms")
		a.put("?shared=true&permits=2", "").wants(t, 422, "invalid")
		a.remove().wantsStatus(t, 204)
		c.put("?permits=2&wait=10s", "").granted(t)
		d.lock("r").put("?shared=true", "").granted(t)
		if g := d.lock("r").put("?shared=true", "").granted(t); !g.Shared {
			t.Fatalf("got %+v", g)
		}
	})
}

// Two daemons: what is held by one the other does not grant, and to the same client it says where.
func TestAClientGoesToAnotherDaemon(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: "app-8", Address: "10.0.0.8:80"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Leave(context.Background()) })
		other := serve(t, db, func(c *httpapi.Config) {
			c.Sessions = func() []*heartbeat.Session { return []*heartbeat.Session{s} }
		})
		for _, mine := range []holder{other.lock("x"), other.campaign("x")} {
			g := mine.put("", "").granted(t)
			for _, query := range []string{"", "?wait=20s"} {
				began := time.Now()
				p := mine.by(d).put(query, "").wants(t, 409, "held_elsewhere")
				if p.Holder == nil || p.Holder.Address != "10.0.0.8:80" || p.Holder.Name != "app-8" || p.Holder.Token != g.Token+g.Term || time.Since(began) > 10*time.Second {
					t.Fatalf("got %+v after %v", p, time.Since(began))
				}
			}
			mine.by(d).put("", fmt.Sprintf(`"%d"`, g.Token+g.Term)).wants(t, 410, "lost")
			mine.remove().wantsStatus(t, 204)
			if next := mine.by(d).put("", "").granted(t); next.Token+next.Term <= g.Token+g.Term {
				t.Fatalf("got %+v after %+v", next, g)
			}
		}
	})
}

// Who came first is first, whatever request of whom is under way at the moment.
func TestWhoCameFirstIsFirst(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		now := d.lock("x")
		now.put("?ttl=1m", "").granted(t)
		var waiting []holder
		for range 4 {
			h := d.lock("x")
			h.put("?wait=10ms&ttl=1m", "").wants(t, 409, "held")
			waiting = append(waiting, h)
		}
		for _, next := range waiting {
			for _, h := range slices.Backward(waiting) { // and they ask in another order
				if a := h.put("?ttl=1m", ""); a.status == 200 {
					t.Fatalf("got %s, want nobody to have it yet", a.body)
				}
			}
			now.remove().wantsStatus(t, 204)
			next.put("?wait=30s&ttl=1m", "").granted(t)
			now, waiting = next, waiting[1:]
		}
	})
}

// What a daemon held before it was restarted is lost, also if another has the same name.
func TestARestartedDaemonKnowsNothing(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		lost, led := d.lock("x"), d.campaign("x")
		a, b := lost.put("", ""), led.put("", "")
		a.granted(t)
		b.granted(t)
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := d.session.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 500*time.Millisecond {
			t.Fatalf("it left after %v, want it to wait for what it had promised", took)
		}
		again := serve(t, db)
		lost.by(again).put("", a.header.Get("ETag")).wants(t, 410, "lost")
		led.by(again).put("", b.header.Get("ETag")).wants(t, 410, "lost")
		lost.by(again).do("GET", "", "").wants(t, 404, "no_such_grant")
		led.by(again).put("", "").granted(t)
	})
}

// A release by force reaches the client by its next renewal, and waits for it.
func TestAClientIsAskedToRelease(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		h := d.lock("x")
		g := h.put("", "").granted(t)
		var asking sync.WaitGroup
		asking.Go(func() {
			a := d.do(request{method: "POST", path: "/v1/locks/x/release", body: `{"reason":"it hangs"}`}).wantsStatus(t, 200)
			if !strings.Contains(a.body, `"holder":""`) {
				t.Errorf("got %s, want it free", a.body)
			}
		})
		var p httpapi.Problem
		dbtest.Eventually(t, "it is told", func() bool {
			a := h.put("", "")
			if a.status == 200 {
				return false
			}
			p = a.wants(t, 410, "requested")
			return true
		})
		if p.By != "loopback" || p.Reason != "it hangs" {
			t.Fatalf("got %+v", p)
		}
		if shown := h.do("GET", "", "").granted(t); shown.State != "ending" || shown.Token != g.Token {
			t.Fatalf("got %+v", shown)
		}
		h.remove().wantsStatus(t, 204)
		asking.Wait()
		if !d.session.Valid() {
			t.Fatal("the daemon's session was lost")
		}
	})
}

// Only who has taken a right may renew it or give it up, and administrators.
func TestARightIsItsTakers(t *testing.T) {
	t.Parallel()
	file, tokens := tokenFile(t)
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), func(c *httpapi.Config) { c.Tokens = loaded(t, file) })
	h := d.lock("x")
	h.as = tokens[httpapi.Viewer]
	h.put("", "").wants(t, 403, "forbidden")
	h.remove().wants(t, 403, "forbidden")
	other := h
	other.as = tokens[httpapi.Admin]
	g := other.put("", "").granted(t)
	h.as = tokens[httpapi.Operator]
	h.put("", "").wants(t, 403, "not_yours")
	h.put("", fmt.Sprintf(`"%d"`, g.Token)).wants(t, 403, "not_yours")
	h.remove().wants(t, 403, "not_yours")
	h.do("GET", "", "").granted(t) // which any viewer may
	other.remove().wantsStatus(t, 204)
	h.put("", "").granted(t)
	other.put("", "").granted(t)
	began := time.Now()
	other.remove().wantsStatus(t, 204)
	if took := time.Since(began); took < time.Second {
		t.Fatalf("it was given back after %v, want what was promised kept", took)
	}
	h.do("GET", "", "").wants(t, 404, "no_such_grant")
}

func TestWhatCannotBeAskedForIsRefused(t *testing.T) {
	t.Parallel()
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), func(c *httpapi.Config) { c.Limit(0, 2) })
	for query, where := range map[string]string{
		"?ttl=1":         "query.ttl",
		"?ttl=999ms":     "query.ttl",
		"?ttl=61s":       "query.ttl",
		"?ttl=":          "",
		"?wait=31s":      "query.wait",
		"?wait=-1s":      "query.wait",
		"?tie=x":         "query.tie",
		"?permits=0":     "query.permits",
		"?permits=x":     "query.permits",
		"?shared=maybe":  "query.shared",
		"?priority=1":    "query.priority",
		"?unknown=thing": "query.unknown",
	} {
		a := d.lock("x").put(query, "")
		if where == "" {
			a.granted(t)
			continue
		}
		if p := a.wants(t, 422, "invalid"); len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Location, where) {
			t.Errorf("%s: got %+v, want it to name %s", query, p, where)
		}
	}
	for _, id := range []string{"x", "%2e%2e", strings.Repeat("0", 36), uuid.Nil.String() + "0", "urn:uuid:" + uuid.NewString(), "{" + uuid.NewString() + "}", strings.ReplaceAll(uuid.NewString(), "-", "")} {
		d.do(request{method: "PUT", path: "/v1/locks/x/grants/" + id}).wants(t, 422, "invalid")
	}
	for _, name := range []string{" x", "%00", "%ff", strings.Repeat("x", 201)} {
		d.do(request{method: "PUT", path: "/v1/locks/" + strings.ReplaceAll(name, " ", "%20") + "/grants/" + uuid.NewString()}).wants(t, 422, "invalid")
	}
	upper := d.lock("y")
	g := upper.put("", "").granted(t)
	upper.path = strings.ToUpper(upper.path[:4]) + upper.path[4:] // of the path nothing is
	upper.path = "/v1/locks/y/grants/" + strings.ToUpper(upper.client())
	if same := upper.put("", "").granted(t); same.Token != g.Token {
		t.Fatalf("the same id in capitals: got %+v, want %+v", same, g)
	}
	a := d.lock("z").put("", "")
	if p := a.wants(t, 503, "too_many_grants"); p.Hint == "" || a.header.Get("Retry-After") == "" {
		t.Fatalf("got %+v with %v", p, a.header)
	}
}

// Nothing is granted while no session of the daemon carries rights, and it says when to ask again.
func TestWithoutASessionNothingIsGranted(t *testing.T) {
	t.Parallel()
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), nobody)
	for _, h := range []holder{d.lock("x"), d.campaign("x")} {
		if a := h.put("?wait=10s", ""); a.header.Get("Retry-After") == "" {
			t.Fatalf("got %v", a.header)
		} else {
			a.wants(t, 503, "suspended")
		}
	}
	draining := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)))
	draining.post("/v1/members/app-7/drain").wantsStatus(t, 200)
	dbtest.Eventually(t, "it drains", func() bool { return draining.session.Draining() })
	draining.campaign("x").put("", "").wants(t, 503, "draining")
	draining.lock("x").put("", "").granted(t)
}

// wire is a connection of a client of its own, that speaks HTTP/1.1 as little as it needs.
type wire struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (d *daemon) wire(t *testing.T) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &wire{t, conn, bufio.NewReader(conn)}
}

// tie is a query that ties to this connection, and says more.
func (w *wire) tie(more string) string { return "?tie=" + w.conn.LocalAddr().String() + more }

func (w *wire) put(path, header string) {
	fmt.Fprintf(w.conn, "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n%s\r\n", path, header)
}

func (w *wire) read() answer {
	w.t.Helper()
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func TestATiedLockIsFreeWhenTheConnectionEnds(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		for name, end := range map[string]func(*net.TCPConn){
			"closed":       func(c *net.TCPConn) { c.Close() },
			"reset":        func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
			"half closed":  func(c *net.TCPConn) { c.CloseWrite() },
			"in a request": func(c *net.TCPConn) { fmt.Fprint(c, "PUT /v1/lo"); c.Close() },
		} {
			w, h := d.wire(t), d.lock(name)
			w.put(h.path+w.tie("&ttl=1m"), "")
			g := w.read().granted(t)
			if !g.Tied {
				t.Fatalf("%s: got %+v", name, g)
			}
			other := d.lock(name)
			other.put("?wait=10ms&ttl=1m", "").wants(t, 409, "held")
			began := time.Now()
			end(w.conn.(*net.TCPConn))
			other.put("?wait=30s", "").granted(t)
			if took := time.Since(began); took > 10*time.Second {
				t.Fatalf("%s: taken over after %v", name, took)
			}
		}
	})
}

// What is renewed on another connection, or without a tie, does not end with the old one, nor with the new one: which of the
// two requests was sent last nobody can tell.
func TestARenewalElsewhereUnties(t *testing.T) {
	t.Parallel()
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)))
	for _, tied := range []bool{true, false} {
		first, second, h := d.wire(t), d.wire(t), d.lock("x")
		then := "?ttl=1m"
		if tied {
			then = second.tie("&ttl=1m")
		}
		first.put(h.path+first.tie("&ttl=1m"), "")
		g := first.read().granted(t)
		second.put(h.path+then, fmt.Sprintf("If-Match: \"%d\"\r\n", g.Token))
		if again := second.read().granted(t); again.Token != g.Token || again.Tied {
			t.Fatalf("%s: got %+v", then, again)
		}
		first.conn.Close()
		second.conn.Close()
		time.Sleep(200 * time.Millisecond)
		h.put("?ttl=1m", fmt.Sprintf(`"%d"`, g.Token)).granted(t)
		h.remove().wantsStatus(t, 204)
	}
}

// A waiting place that is tied goes with its connection, in a request and between two.
func TestATiedPlaceGoesWithItsConnection(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		holder := d.lock("x")
		holder.put("?ttl=1m", "").granted(t)
		waiters := func() int { return len(read[httpapi.Lock](d, "/v1/locks/x").Waiters) }
		for _, wait := range []string{"30s", "10ms"} {
			w, h := d.wire(t), d.lock("x")
			w.put(h.path+w.tie("&ttl=1m&wait="+wait), "")
			if wait == "10ms" {
				w.read().wants(t, 409, "held")
			}
			dbtest.Eventually(t, "a place", func() bool { return waiters() == 1 })
			w.conn.Close()
			dbtest.Eventually(t, "no place", func() bool { return waiters() == 0 })
			var last answer
			dbtest.Eventually(t, "no grant", func() bool { last = h.do("GET", "", ""); return last.status == http.StatusNotFound })
			last.wants(t, 404, "no_such_grant")
		}
	})
}

// A daemon that ends its connections does not say that its clients have gone.
func TestAServerThatEndsCutsNoTie(t *testing.T) {
	t.Parallel()
	db := dbtest.Migrated(t, dbtest.SQLiteFile(t))
	d := serve(t, db)
	w, h := d.wire(t), d.lock("x")
	w.put(h.path+w.tie("&ttl=1m"), "")
	w.read().granted(t)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	if info, err := lock.Inspect(t.Context(), db, "x"); err != nil || len(info.Holders) != 1 {
		t.Fatalf("got %+v and %v, want it held on", info, err)
	}
}

func TestATieIsRefusedWhereItSaysNothing(t *testing.T) {
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)))
	closing, relayed, old := d.wire(t), d.wire(t), d.wire(t)
	closing.put(d.lock("x").path+closing.tie(""), "Connection: close\r\n")
	relayed.put(d.lock("x").path+old.tie(""), "") // as a relay has another end than the client
	for what, w := range map[string]*wire{"closing": closing, "relayed": relayed} {
		if p := w.read().wants(t, 400, "tie_refused"); p.Hint == "" || p.Detail == "" {
			t.Errorf("%s: got %+v", what, p)
		}
	}
	fmt.Fprintf(old.conn, "PUT %s HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n", d.lock("x").path+old.tie(""))
	old.read().wants(t, 400, "tie_refused")
}

// HTTP/2 carries many rights on one connection; all end with it.
func TestATieOverHTTP2(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	file, tokens := tokenFile(t)
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), func(c *httpapi.Config) {
		c.TLS, c.Tokens = pki.load(""), loaded(t, file)
	})
	d.client = pki.client("") // which speaks HTTP/2
	h, other := d.lock("x"), d.lock("y")
	h.as, other.as = tokens[httpapi.Operator], tokens[httpapi.Operator]
	transport := d.client.Transport.(*http.Transport)
	var end net.Addr
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			end = c.LocalAddr()
		}
		return c, err
	}
	d.get("/livez")
	for _, one := range []holder{h, other} {
		if g := one.put("?tie="+end.String()+"&ttl=1m", "").granted(t); !g.Tied {
			t.Fatalf("got %+v", g)
		}
	}
	began := time.Now()
	d.client.CloseIdleConnections()
	for _, one := range []holder{h, other} {
		dbtest.Eventually(t, "free", func() bool { return one.do("GET", "", "").status == 404 })
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Fatalf("it was free after %v, want it with the connection", took)
	}
}

func TestTheMetricsOfRights(t *testing.T) {
	t.Parallel()
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)))
	h, w := d.lock("x"), d.lock("x")
	h.put("", "").granted(t)
	h.put("", "").granted(t)
	d.campaign("x").put("", "").granted(t)
	w.put("?wait=10ms", "").wants(t, 409, "held")
	tells := func(lines ...string) {
		t.Helper()
		body := d.get("/metrics").body
		for _, line := range lines {
			if !strings.Contains(body, line+"\n") {
				t.Errorf("got no %s", line)
			}
		}
	}
	tells(`coordd_rights_held{kind="lock"} 1`, `coordd_rights_held{kind="election"} 1`, `coordd_rights_waiting{kind="lock"} 1`,
		`coordd_rights_granted_total{kind="lock"} 1`, `coordd_right_renewals_total{kind="lock"} 1`, `coordd_rights_ended_total{kind="lock",reason="given_up"} 0`)
	w.remove().wantsStatus(t, 204)
	h.remove().wantsStatus(t, 204)
	tells(`coordd_rights_held{kind="lock"} 0`, `coordd_rights_waiting{kind="lock"} 0`, `coordd_rights_ended_total{kind="lock",reason="given_up"} 1`)
}
