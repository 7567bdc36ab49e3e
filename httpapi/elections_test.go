package httpapi_test

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
	"github.com/coordd/coordd/lock"
)

// campaigns leads or waits to until the test ends, and does what it is asked.
func campaigns(t *testing.T, s *heartbeat.Session, cfg election.Config) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		err := election.Run(ctx, s, cfg, func(ctx context.Context, _ *election.Leadership) error {
			<-ctx.Done()
			return nil
		})
		if err != nil {
			t.Errorf("%s campaigns for %s: %v", s.Name(), cfg.Name, err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// leads waits until somebody leads, and returns the election then.
func (d *daemon) leads(name, leader string) (e httpapi.Election) {
	d.t.Helper()
	dbtest.Eventually(d.t, leader+" leads "+name, func() bool {
		e = read[httpapi.Election](d, "/v1/elections/"+url.PathEscape(name))
		return e.Leader == leader
	})
	return e
}

func TestElectionsAreShown(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		if e := read[httpapi.Election](d, "/v1/elections/never"); e.Name != "never" || e.Term != 0 || e.Leader != "" || e.Candidates == nil {
			t.Fatalf("one that never was: got %+v", e)
		}
		const name = "a/b ä%"
		b := join(t, db, "b")
		campaigns(t, d.session, election.Config{Name: name, Value: "http://x", Client: "me"})
		e := d.leads(name, "app-7")
		campaigns(t, b, election.Config{Name: name, Priority: -3})
		dbtest.Eventually(t, "a candidate", func() bool {
			e = d.leads(name, "app-7")
			return len(e.Candidates) == 1
		})
		if l := e; l.LeaderID != d.session.ID() || l.Term < 1 || l.Value != "http://x" || l.Client != "me" || l.Since.IsZero() {
			t.Fatalf("leader: got %+v of %+v", l, e)
		}
		if c := e.Candidates[0]; c.MemberID != b.ID() || c.Name != "b" || c.Priority != -3 || c.Since.IsZero() {
			t.Fatalf("candidate: got %+v", c)
		}
		d.get("/v1/elections/"+url.PathEscape(" no name")).wants(t, 422, "invalid")
	})
}

func TestLocksAreShown(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		ctx := t.Context()
		alone, err := lock.Acquire(ctx, d.session, lock.Exclusive("x").For("me"))
		if err != nil {
			t.Fatal(err)
		}
		defer alone.Release(ctx)
		for range 2 {
			shared, err := lock.Acquire(ctx, d.session, lock.Semaphore("s", 2))
			if err != nil {
				t.Fatal(err)
			}
			defer shared.Release(ctx)
		}
		waiting, cancel := context.WithCancel(ctx)
		var waiter sync.WaitGroup
		waiter.Go(func() { _, _ = lock.Acquire(waiting, d.session, lock.Exclusive("s")) })
		defer waiter.Wait()
		defer cancel()
		var s httpapi.Lock
		dbtest.Eventually(t, "a waiter", func() bool {
			s = read[httpapi.Lock](d, "/v1/locks/s")
			return len(s.Waiters) == 1
		})
		if len(s.Holders) != 2 || s.Holder != s.Holders[0].Name || !s.Holders[0].Shared || s.Holders[1].Token != s.Token || s.Waiters[0].Name != "app-7" {
			t.Fatalf("a semaphore: got %+v", s)
		}
		x := read[httpapi.Lock](d, "/v1/locks/x")
		if h := x.Holders[0]; x.Holder != "app-7" || h.Name != "app-7" || h.Client != "me" || h.Shared || h.Token != alone.Token() || x.Token != h.Token || len(x.Holders) != 1 {
			t.Fatalf("a lock: got %+v", x)
		}
		if free := read[httpapi.Lock](d, "/v1/locks/never"); free.Token != 0 || free.Holder != "" || free.Holders == nil || free.Waiters == nil {
			t.Fatalf("one that nobody asked for: got %+v", free)
		}
	})
}

// Lists come in pages, each of which says where the next one begins.
func TestListsComeInPages(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		names := []string{"A", "a", "a/b", "b", "z", "ä"} // byte by byte
		for _, name := range names {
			h, err := lock.Acquire(t.Context(), d.session, lock.Exclusive(name))
			if err != nil {
				t.Fatal(err)
			}
			defer h.Release(t.Context())
			l, err := election.Campaign(t.Context(), d.session, election.Config{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Resign(t.Context())
		}
		for limit := 1; limit <= len(names)+1; limit++ {
			var locks, elections []string
			for next := "first"; next != ""; {
				p := read[httpapi.LockPage](d, page("/v1/locks", limit, next))
				if len(p.Locks) > limit || next == p.Next {
					t.Fatalf("%d after %q: got %+v", limit, next, p)
				}
				for _, l := range p.Locks {
					if l.Holder == "" {
						t.Fatalf("%d after %q: got %+v without its holder", limit, next, l)
					}
					locks = append(locks, l.Name)
				}
				next = p.Next
			}
			for next := "first"; next != ""; {
				p := read[httpapi.ElectionPage](d, page("/v1/elections", limit, next))
				for _, e := range p.Elections {
					elections = append(elections, e.Name)
				}
				next = p.Next
			}
			if !slices.Equal(locks, names) || !slices.Equal(elections, names) {
				t.Fatalf("%d a page: got %q and %q, want %q", limit, locks, elections, names)
			}
		}
		if p := read[httpapi.LockPage](d, "/v1/locks?after=a0"); p.Locks[0].Name != "b" {
			t.Fatalf("after a name that is none: got %+v", p.Locks)
		}
		for _, bad := range []string{"?limit=0", "?limit=1001", "?limit=x", "?x=y"} {
			d.get("/v1/locks"+bad).wants(t, 422, "invalid")
		}
	})
}

func page(path string, limit int, after string) string {
	q := url.Values{"limit": {string(rune('0' + limit))}}
	if after != "first" {
		q.Set("after", after)
	}
	return path + "?" + q.Encode()
}

// An ETag changes with what is shown, and its token is what a decision is made on.
func TestETagsOfElectionsAndLocks(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		l, err := election.Campaign(t.Context(), d.session, election.Config{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Resign(t.Context())
		h, err := lock.Acquire(t.Context(), d.session, lock.Exclusive("x"))
		if err != nil {
			t.Fatal(err)
		}
		defer h.Release(t.Context())
		for _, path := range []string{"/v1/elections", "/v1/elections/x", "/v1/locks", "/v1/locks/x"} {
			with := func(tag string) answer {
				return d.do(request{path: path, header: http.Header{"If-None-Match": {tag}}})
			}
			tag := d.get(path).header.Get("ETag")
			if a := with(tag).wantsStatus(t, 304); a.body != "" {
				t.Fatalf("%s: got %+v, want no body", path, a)
			}
			if path == "/v1/elections/x" {
				if err := l.Publish(t.Context(), "new"); err != nil {
					t.Fatal(err)
				}
				a := with(tag).wantsStatus(t, 200)
				before, _, _ := strings.Cut(tag, "-")
				if after, _, _ := strings.Cut(a.header.Get("ETag"), "-"); after != before {
					t.Fatalf("the same term: got the tags %s and %s, want the same beginning", tag, a.header.Get("ETag"))
				}
			}
		}
	})
}

func TestALeaderIsAskedToResign(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		b, c := join(t, db, "b"), join(t, db, "c")
		resign := func(what, body string, header http.Header) answer {
			return d.do(request{method: "POST", path: "/v1/elections/x/" + what, body: body, header: header})
		}
		resign("resign", "", nil).wants(t, 409, "not_held")
		campaigns(t, d.session, election.Config{Name: "x"})
		first := d.leads("x", "app-7")
		campaigns(t, b, election.Config{Name: "x"})
		dbtest.Eventually(t, "b waits", func() bool { return len(d.leads("x", "app-7").Candidates) == 1 })
		campaigns(t, c, election.Config{Name: "x"})
		dbtest.Eventually(t, "c waits", func() bool { return len(d.leads("x", "app-7").Candidates) == 2 })

		resign("transfer", `{"to":"nobody"}`, nil).wants(t, 404, "no_such_member")
		resign("transfer", `{"to":"app-7"}`, nil).wants(t, 409, "no_candidate")
		resign("transfer", `{}`, nil).wants(t, 422, "invalid")
		resign("resign", `{"within":"2m"}`, nil).wants(t, 422, "invalid")
		resign("resign", ``, http.Header{"If-Match": {`"x"`}}).wants(t, 422, "invalid")
		resign("resign", ``, http.Header{"If-Match": {`"999999"`}}).wants(t, 412, "state_changed")

		tag := d.get("/v1/elections/x").header.Get("ETag")
		a := resign("transfer", `{"to":"c","reason":"c is faster"}`, http.Header{"If-Match": {tag}}).wantsStatus(t, 200)
		second := d.leads("x", "c")
		if second.Term <= first.Term {
			t.Fatalf("got the term %d after %d (answer %s)", second.Term, first.Term, a.body)
		}
		resign("resign", ``, http.Header{"If-Match": {tag}}).wants(t, 412, "state_changed") // sent again, it hits nobody else
		resign("resign", `{"reason":"b is even faster","within":"30s"}`, nil).wantsStatus(t, 200)
		d.leads("x", "b")

		events, by := audits(t, db)
		if len(events) != 2 || events[0].Action != "transfer" || events[1].Action != "resign" || events[0].Subject != "x" || events[0].MemberID != d.session.ID() || events[1].MemberID != c.ID() {
			t.Fatalf("audit: got %+v", events)
		}
		if by[0].Reason != "c is faster" || by[0].Actor != "loopback" || by[0].Via != "POST /v1/elections/x/transfer" || by[1].Reason != "b is even faster" {
			t.Fatalf("audit: got %+v", by)
		}
		page, err := journal.Read(t.Context(), db.Queries, 0, 1000, "election")
		if err != nil {
			t.Fatal(err)
		}
		requested := 0
		for _, e := range page.Events {
			if e.Action == "requested" && strings.Contains(e.Data, `"by":"loopback"`) {
				requested++
			}
		}
		if requested != 2 {
			t.Fatalf("got %d requests in %+v, want 2", requested, page.Events)
		}
	})
}

func TestALockIsReleasedByForce(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		release := func(body string) answer {
			return d.do(request{method: "POST", path: "/v1/locks/x/release", body: body})
		}
		release("").wants(t, 409, "not_held")
		h, err := lock.Acquire(t.Context(), d.session, lock.Exclusive("x"))
		if err != nil {
			t.Fatal(err)
		}
		var obeying sync.WaitGroup
		obeying.Go(func() {
			<-h.Done()
			h.Release(context.WithoutCancel(t.Context()))
		})
		defer obeying.Wait()
		a := release(`{"reason":"it hangs"}`).wantsStatus(t, 200)
		if !strings.Contains(a.body, `"holder":""`) {
			t.Fatalf("got %s, want it free", a.body)
		}
		if err := h.Err(); err == nil || !strings.Contains(err.Error(), "loopback: it hangs") {
			t.Fatalf("its holder was told: got %v, want who and why", err)
		}
		events, by := audits(t, db)
		if len(events) != 1 || events[0].Action != "release" || by[0].Reason != "it hangs" {
			t.Fatalf("audit: got %+v of %+v", by, events)
		}
	})
}

// Who does not obey is condemned, in the name of who asked.
func TestWhoKeepsALockIsCondemned(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: "hangs", TTL: dbtest.Stretch(2 * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Leave(t.Context())
		h, err := lock.Acquire(t.Context(), s, lock.Exclusive("x"))
		if err != nil {
			t.Fatal(err)
		}
		a := d.do(request{method: "POST", path: "/v1/locks/x/release", body: `{"within":"100ms","reason":"it hangs"}`}).wantsStatus(t, 200)
		if h.Valid() || !strings.Contains(a.body, `"holder":""`) {
			t.Fatalf("got %s, and valid %v", a.body, h.Valid())
		}
		events, by := audits(t, db)
		if len(events) != 2 || events[1].Action != "forget" || events[1].Subject != "hangs" || by[1].Reason != "it hangs" {
			t.Fatalf("audit: got %+v of %+v", by, events)
		}
	})
}
