package rights

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/coorddtest"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/lock"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// daemon is a session with a desk.
type daemon struct {
	*Desk
	t       *testing.T
	session *heartbeat.Session
}

// open opens a desk of a session that leaves with the test. Its clock counts in the bubble.
func open(t *testing.T, db *coordd.DB, name string, change ...func(*Config)) *daemon {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: name, Address: name + ".example.org"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) })
	cfg := Config{Sessions: func() []*heartbeat.Session { return []*heartbeat.Session{s} }}
	for _, c := range change {
		c(&cfg)
	}
	return &daemon{New(cfg), t, s}
}

// bubble runs a test in virtual time, on a database in memory.
func bubble(t *testing.T, test func(t *testing.T, db *coordd.DB)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, coorddtest.SQLite(t)) })
}

var me = By{Name: "me"}

// exclusive is what most tests ask for.
func exclusive(name, client string) Ask {
	return Ask{Key: Key{Lock, name, client}, By: me}
}

func campaign(name, client string) Ask {
	return Ask{Key: Key{Election, name, client}, By: me}
}

func (a Ask) waiting(d time.Duration) Ask { a.Wait = d; return a }
func (a Ask) ttl(d time.Duration) Ask     { a.TTL = d; return a }
func (a Ask) renewing(g Grant) Ask        { a.Token = g.Token; return a }
func (a Ask) by(name string) Ask          { a.By = By{Name: name}; return a }
func (a Ask) tied(to chan struct{}) Ask   { a.Tie = to; return a }

func (d *daemon) put(ask Ask) Grant {
	d.t.Helper()
	g, err := d.Put(d.t.Context(), ask)
	if err != nil {
		d.t.Fatalf("put %+v: %v", ask.Key, err)
	}
	return g
}

// refuses fails the test unless an ask fails with an error of type E.
func refuses[E error](d *daemon, ask Ask) (e E) {
	d.t.Helper()
	g, err := d.Put(d.t.Context(), ask)
	if !errors.As(err, &e) {
		d.t.Fatalf("put %+v: got %+v, %v, want %T", ask.Key, g, err, e)
	}
	return e
}

func (d *daemon) fails(ask Ask, want error) {
	d.t.Helper()
	if g, err := d.Put(d.t.Context(), ask); !errors.Is(err, want) {
		d.t.Fatalf("put %+v: got %+v, %v, want %v", ask.Key, g, err, want)
	}
}

func (d *daemon) remove(ask Ask) {
	d.t.Helper()
	if err := d.Delete(d.t.Context(), ask.Key, ask.By, 0); err != nil {
		d.t.Fatalf("delete %+v: %v", ask.Key, err)
	}
}

// among fails the test unless a time is between two others.
func among(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Fatalf("%s: got %v, want it between %v and %v", what, got, least, most)
	}
}

// latency is what a look, a grant and a release may take here.
const latency = 300 * time.Millisecond

func TestAPromiseIsOfWhatIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d := open(t, db, "a")
		ask := exclusive("x", "1")
		first := d.put(ask.ttl(time.Second))
		if first.Valid != 980*time.Millisecond || first.State != Holds || first.Token == 0 || first.Member != d.session.ID() {
			t.Fatalf("a short one: got %+v", first)
		}
		least := time.Hour
		for range 50 {
			time.Sleep(113 * time.Millisecond)
			left := d.session.Stats().Remaining
			g := d.put(ask.renewing(first).ttl(MostTTL))
			if want := (left * 98 / 100).Truncate(time.Millisecond); g.Valid != want || g.Token != first.Token {
				t.Fatalf("with %v left: got %+v, want it valid for %v", left, g, want)
			}
			least = min(least, g.Valid)
		}
		if least > 4*time.Second {
			t.Fatalf("got %v at least, want some of the end of a beat", least)
		}
		if shown, err := d.Get(ask.Key); err != nil || shown.Valid != 0 || shown.Token != first.Token {
			t.Fatalf("shown: got %+v and %v, want no promise", shown, err)
		}
	})
}

// Whoever does not renew loses the right when its ttl has passed since the answer, and not sooner.
func TestWhoDoesNotRenewLoses(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		a, b := open(t, db, "a"), open(t, db, "b")
		for _, ask := range []func(name, client string) Ask{exclusive, campaign} {
			mine := ask("x", "1").ttl(7 * time.Second)
			g := a.put(mine)
			began := time.Now()
			next := b.put(ask("x", "2").waiting(30 * time.Second))
			among(t, "taken over", time.Since(began), 7*time.Second, 7*time.Second+latency)
			if next.Token <= g.Token {
				t.Fatalf("got the token %d after %d", next.Token, g.Token)
			}
			for range 20 { // what was waited for is renewed without
				if again := b.put(ask("x", "2")); again.Token != next.Token {
					t.Fatalf("got the token %d after %d", again.Token, next.Token)
				}
			}
			if lost := refuses[*LostError](a, mine.renewing(g)); lost.Why != Lost {
				t.Fatalf("got %+v", lost)
			}
			held := refuses[*BusyError](a, mine)
			if held.Held.Client != "2" || held.Held.Member != "b" || held.Held.Token != next.Token || held.Queued {
				t.Fatalf("got %+v", held.Held)
			}
			b.remove(ask("x", "2"))
			if again := a.put(mine); again.Token <= next.Token {
				t.Fatalf("got the token %d after %d", again.Token, next.Token)
			}
			a.remove(mine)
		}
		for _, kind := range []Kind{Lock, Election} {
			if c := a.Counts(kind); c.Held != 0 || c.Waiting != 0 || c.Granted != 2 || c.Ended[Expired] != 1 || c.Ended[GivenUp] != 1 {
				t.Fatalf("%s: got %+v", kind, c)
			}
		}
	})
}

// A place in the queue is kept from one request to the next, so who asked first is first.
func TestAPlaceIsKeptBetweenRequests(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		a, b := open(t, db, "a"), open(t, db, "b")
		holder := exclusive("x", "0").ttl(MostTTL)
		a.put(holder)
		// They ask again and again, at other times, of two daemons.
		var mu sync.Mutex
		var order []string
		var all sync.WaitGroup
		for i, d := range []*daemon{a, b, a, b, a} {
			client := fmt.Sprint(i + 1)
			all.Go(func() {
				ask := exclusive("x", client).waiting(time.Duration(5-i) * 500 * time.Millisecond).ttl(4 * time.Second)
				for {
					g, err := d.Put(t.Context(), ask)
					var busy *BusyError
					switch {
					case err == nil:
						mu.Lock()
						order = append(order, g.Client)
						mu.Unlock()
						d.remove(ask)
						return
					case !errors.As(err, &busy) || !busy.Queued || busy.Held.Client == client:
						t.Errorf("client %s: got %v (%+v), want a place in the queue", client, err, busy)
						return
					}
					time.Sleep(time.Duration(i) * 700 * time.Millisecond)
				}
			})
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		a.remove(holder)
		all.Wait()
		if got := fmt.Sprint(order); got != "[1 2 3 4 5]" {
			t.Fatalf("got the order %s, want that in which they came", got)
		}
	})
}

// A place that nobody asks for any more is given up after a ttl; what it was granted meanwhile is
// kept for as long, and then given back.
func TestAPlaceLapses(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		a, b := open(t, db, "a"), open(t, db, "b")
		holder := exclusive("x", "0").ttl(MostTTL)
		a.put(holder)
		absent := exclusive("x", "1").waiting(time.Second).ttl(5 * time.Second)
		refuses[*BusyError](a, absent)
		waiters := func() int {
			info, err := lock.Inspect(t.Context(), db, "x")
			if err != nil {
				t.Fatal(err)
			}
			return len(info.Waiters)
		}
		began := time.Now()
		for waiters() > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		among(t, "a place that lapsed", time.Since(began), 5*time.Second, 5*time.Second+latency)
		time.Sleep(latency)
		if _, err := a.Get(absent.Key); !errors.Is(err, coordd.ErrNone) {
			t.Fatalf("got %v, want it gone", err)
		}

		refuses[*BusyError](a, absent) // a new place
		began = time.Now()
		time.Sleep(2 * time.Second)
		a.remove(holder)
		b.put(exclusive("x", "2").waiting(30 * time.Second))
		among(t, "a right that nobody came for", time.Since(began), 5*time.Second, 5*time.Second+latency)
		if c := a.Counts(Lock); c.Granted != 2 || c.Ended[Expired] != 1 {
			t.Fatalf("got %+v, want it granted and expired", c)
		}
		b.remove(exclusive("x", "2"))

		b.put(exclusive("x", "2").ttl(MostTTL))
		refuses[*BusyError](a, absent) // and one that is there in time
		b.remove(exclusive("x", "2"))
		time.Sleep(4 * time.Second)
		if g := a.put(absent); g.Valid < time.Second {
			t.Fatalf("got %+v", g)
		}
	})
}

// A client that gives up its place has none, and a request that waits on it is told.
func TestAPlaceIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d := open(t, db, "a")
		d.put(exclusive("x", "0").ttl(MostTTL))
		ask := exclusive("x", "1").waiting(30 * time.Second)
		told := make(chan error, 1)
		go func() {
			_, err := d.Put(t.Context(), ask)
			told <- err
		}()
		time.Sleep(time.Second)
		began := time.Now()
		d.remove(ask)
		among(t, "given up", time.Since(began), 0, latency)
		var lost *LostError
		if err := <-told; !errors.As(err, &lost) || lost.Why != GivenUp {
			t.Fatalf("the request that waited: got %v", err)
		}
		if err := d.Delete(t.Context(), ask.Key, me, 0); !errors.Is(err, coordd.ErrNone) {
			t.Fatalf("again: got %v, want %v", err, coordd.ErrNone)
		}
		time.Sleep(latency) // the database is told behind it
		info, err := lock.Inspect(t.Context(), db, "x")
		if err != nil || len(info.Waiters) != 0 || d.Counts(Lock).Waiting != 0 {
			t.Fatalf("got %+v and %v, want nobody to wait", info, err)
		}
	})
}

// The answer to who has waited promises what is left since it asked, which may be nothing; it
// renews, and then it counts.
func TestAPromiseAfterAWaitCountsFromTheAsking(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d := open(t, db, "a")
		holder := exclusive("x", "0").ttl(MostTTL)
		d.put(holder)
		ask := exclusive("x", "1").waiting(30 * time.Second)
		sent := clock.Now()
		var removing sync.WaitGroup
		defer removing.Wait()
		removing.Go(func() {
			time.Sleep(20 * time.Second)
			d.remove(holder)
		})
		g := d.put(ask)
		among(t, "waited", clock.Now()-sent, 20*time.Second, 20*time.Second+latency)
		if sent+g.Valid >= clock.Now() {
			t.Fatalf("got %v, want what has passed", g.Valid)
		}
		sent = clock.Now()
		if again := d.put(ask.renewing(g)); again.Token != g.Token || sent+again.Valid < clock.Now()+time.Second {
			t.Fatalf("got %+v after %+v", again, g)
		}
	})
}

func TestWhatIsAskedForInAnotherWayIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		a, b := open(t, db, "a"), open(t, db, "b")
		x, e := exclusive("x", "1"), campaign("x", "1")
		shared, permits, priority := x, x, e
		shared.Shared, permits.Permits, priority.Priority = true, 3, 1
		g := a.put(x)
		a.put(e)
		for _, other := range []Ask{shared, permits, priority} {
			a.fails(other, ErrOther)
			if other.Kind == Lock {
				a.fails(other.renewing(g), ErrOther)
			}
		}
		a.fails(x.by("another"), ErrNotYours)
		a.fails(x.renewing(g).by("another"), ErrNotYours)
		if err := a.Delete(t.Context(), x.Key, By{Name: "another"}, 0); !errors.Is(err, ErrNotYours) {
			t.Fatalf("got %v", err)
		}
		if err := a.Delete(t.Context(), x.Key, me, g.Token+1); !errors.Is(err, coordd.ErrLost) {
			t.Fatalf("got %v", err)
		}
		a.fails(x.renewing(Grant{Token: g.Token + 1}), coordd.ErrLost)
		for _, ask := range []Ask{x, e, x.waiting(time.Minute), e.waiting(time.Minute)} {
			elsewhere := refuses[*ElsewhereError](b, ask)
			if elsewhere.Held.Address != "a.example.org" || elsewhere.Held.Member != "a" {
				t.Fatalf("got %+v", elsewhere.Held)
			}
		}
		s := shared
		s.Name = "s"
		first := a.put(s)
		if again := refuses[*ElsewhereError](b, s); again.Held.Address != "a.example.org" || again.Held.Token != first.Token {
			t.Fatalf("shared: got %+v", again.Held)
		}
		s.Client = "2"
		b.put(s)
		for _, bad := range []Ask{exclusive("", "1"), campaign(" x", "1"), exclusive("\x00", "1").waiting(time.Second)} {
			a.fails(bad, coordd.ErrInvalid)
		}
		a.put(x.renewing(g)) // after all that it is held as before
	})
}

func TestADeskTakesSoMany(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d := open(t, db, "a", func(c *Config) { c.Most, c.Waiting = 3, 1 })
		d.put(exclusive("x", "1"))
		refuses[*BusyError](d, exclusive("x", "2").waiting(time.Second))
		d.fails(exclusive("y", "2"), ErrFull) // one waits
		d.remove(exclusive("x", "2"))
		d.put(exclusive("y", "2"))
		d.put(exclusive("z", "2"))
		d.fails(exclusive("u", "2"), ErrFull)
		d.put(exclusive("z", "2"))
		d.remove(exclusive("z", "2"))
		d.put(exclusive("u", "2"))
	})
}

// Who is asked to give a right up keeps what it was promised, and is told with the next renewal.
func TestARequestedRightIsKeptForAsLongAsWasPromised(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d := open(t, db, "a")
		ask := exclusive("x", "1")
		request := func() (took time.Duration) {
			began := time.Now()
			if err := lock.ForceRelease(t.Context(), db, "x", "oncall", "it hangs", time.Minute); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		g := d.put(ask)
		among(t, "a client that says nothing", request(), g.Valid-time.Millisecond, g.Valid*102/100+2*latency)
		refuses[*LostError](d, ask.renewing(g))

		d.put(ask)
		var asking sync.WaitGroup
		asking.Go(func() { among(t, "a client that heeds it", request(), 0, 2*time.Second+latency) })
		var lost *LostError
		for lost == nil {
			time.Sleep(time.Second)
			_, err := d.Put(t.Context(), ask)
			errors.As(err, &lost)
		}
		var by *lock.RequestedError
		if !errors.As(lost, &by) || by.By != "oncall" || by.Reason != "it hangs" || lost.Why != Requested {
			t.Fatalf("got %+v", lost)
		}
		if shown, err := d.Get(ask.Key); err != nil || shown.State != Ends {
			t.Fatalf("got %+v and %v", shown, err)
		}
		d.remove(ask)
		asking.Wait()
		if !d.session.Valid() {
			t.Fatal("the session was lost")
		}
	})
}

// An administrator who gives up somebody else's right does not cut its promise short.
func TestAnAdministratorGivesUpWhatIsNotHis(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d := open(t, db, "a")
		ask := exclusive("x", "1")
		g := d.put(ask)
		began := time.Now()
		if err := d.Delete(t.Context(), ask.Key, By{"root", true}, 0); err != nil {
			t.Fatal(err)
		}
		among(t, "given back", time.Since(began), g.Valid, g.Valid*102/100+latency)
		g = d.put(ask)
		if again, err := d.Put(t.Context(), Ask{Key: ask.Key, By: By{"root", true}}); err != nil || again.Token != g.Token {
			t.Fatalf("renewed by an administrator: got %+v and %v", again, err)
		}
	})
}

// When the database is away everybody's right ends in time, and is free when it is back.
func TestASuspensionEndsRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		d := open(t, db, "a")
		ask := exclusive("x", "1")
		g := d.put(ask)
		sent := clock.Now()
		until := sent + g.Valid
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		for {
			time.Sleep(100 * time.Millisecond)
			sent = clock.Now()
			g, err := d.Put(t.Context(), ask.renewing(g))
			if err != nil {
				break
			}
			until = max(until, sent+g.Valid)
		}
		if d.session.Valid() {
			t.Fatal("it was lost before its session was suspended")
		}
		if now := clock.Now(); until > now {
			t.Fatalf("it was promised until %v, and lost at %v", until, now)
		}
		d.fails(exclusive("y", "1"), ErrNoSession)
		tap.Disturb(nil)
		time.Sleep(d.session.Stats().Remaining + 5*time.Second)
		if !d.session.Valid() {
			t.Fatal("the session is not connected again")
		}
		d.fails(ask.renewing(g), coordd.ErrLost)
		if again := d.put(ask.waiting(time.Second)); again.Token <= g.Token {
			t.Fatalf("got %+v after %+v", again, g)
		}
	})
}

// A session that leaves waits for what was promised, or until its clients have given it up; one that
// was lost waits for nothing.
func TestLeavingKeepsPromises(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		for _, heeds := range []bool{false, true} {
			d := open(t, db, fmt.Sprint("heeds ", heeds))
			next := open(t, db, "next")
			ask := exclusive("x", "1")
			g := d.put(ask)
			began := time.Now()
			var leaving sync.WaitGroup
			leaving.Go(func() {
				if err := d.session.Leave(t.Context()); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(100 * time.Millisecond)
			refuses[*LostError](d, ask.renewing(g))
			d.fails(exclusive("y", "1"), ErrNoSession)
			if heeds {
				d.remove(ask)
			}
			next.put(exclusive("x", "2").waiting(30 * time.Second))
			if heeds {
				among(t, "given up", time.Since(began), 0, 2*latency)
			} else {
				among(t, "kept", time.Since(began), g.Valid, g.Valid*102/100+2*latency)
			}
			leaving.Wait()
			d.fails(ask, ErrNoSession)
			next.remove(exclusive("x", "2"))
		}
	})
}

func TestALostSessionLosesItsRights(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d, next := open(t, db, "a"), open(t, db, "b")
		ask := exclusive("x", "1")
		g := d.put(ask)
		began := time.Now()
		refuses[*BusyError](next, exclusive("x", "2").waiting(time.Second).ttl(MostTTL))
		if err := heartbeat.Forget(t.Context(), db, d.session.ID()); err != nil {
			t.Fatal(err)
		}
		<-d.session.Done()
		time.Sleep(time.Millisecond)
		d.fails(ask.renewing(g), coordd.ErrLost)
		d.fails(ask, ErrNoSession)
		next.put(exclusive("x", "2").waiting(30 * time.Second))
		among(t, "taken over", time.Since(began), g.Valid, 10*time.Second)
	})
}

// A member that drains hands its leaderships over, and its locks stay.
func TestADrainingMemberLeadsForNobody(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d, next := open(t, db, "a"), open(t, db, "b")
		lead, hold := campaign("x", "1"), exclusive("x", "1")
		g, h := d.put(lead), d.put(hold)
		if err := heartbeat.Drain(t.Context(), db, d.session.ID()); err != nil {
			t.Fatal(err)
		}
		var lost *LostError
		for lost == nil {
			time.Sleep(500 * time.Millisecond)
			_, err := d.Put(t.Context(), lead.renewing(g))
			errors.As(err, &lost)
		}
		if lost.Why != Unfit || !errors.Is(lost, election.ErrUnfit) {
			t.Fatalf("got %+v", lost)
		}
		d.fails(campaign("y", "1"), election.ErrUnfit)
		if d.Leads("x") {
			t.Fatal("it leads and drains")
		}
		if again := d.put(hold.renewing(h)); again.Token != h.Token {
			t.Fatalf("the lock: got %+v", again)
		}
		d.remove(lead)
		next.put(campaign("x", "2").waiting(time.Second))
	})
}

func TestATiedRightEndsWithItsConnection(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		a, b := open(t, db, "a"), open(t, db, "b")
		first := make(chan struct{})
		tied := func(to chan struct{}) Ask { return exclusive("x", "1").ttl(MostTTL).tied(to) }
		if g := a.put(tied(first)); !g.Tied {
			t.Fatalf("got %+v", g)
		}
		if g := a.put(tied(first)); !g.Tied {
			t.Fatalf("renewed: got %+v", g)
		}
		began := time.Now()
		time.AfterFunc(time.Second, func() { close(first) })
		b.put(exclusive("x", "2").waiting(30 * time.Second).ttl(MostTTL))
		among(t, "taken over", time.Since(began), time.Second, time.Second+latency)

		third := make(chan struct{}) // and a place
		ask := tied(third)
		ask.Wait = time.Second
		refuses[*BusyError](a, ask)
		close(third)
		time.Sleep(time.Millisecond)
		if _, err := a.Get(ask.Key); !errors.Is(err, coordd.ErrNone) {
			t.Fatalf("got %v, want its place gone", err)
		}
		if c := a.Counts(Lock); c.Ended[Cut] != 1 {
			t.Fatalf("got %+v", c)
		}
		b.remove(exclusive("x", "2"))
		var lost *LostError
		if g, err := a.Put(t.Context(), tied(third)); err != nil && (!errors.As(err, &lost) || lost.Why != Cut) {
			t.Fatalf("on a connection that has gone: got %+v and %v", g, err)
		}
		time.Sleep(latency)
		b.put(exclusive("x", "2"))
	})
}

// A request may lie unread while its client gives the connection up, and has the right on another. Whenever it is
// read then, and that connection's end with it, what was promised on the other is kept.
func TestALateRequestTiesNothingToItsConnection(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d := open(t, db, "a")
		held := func(what string, g Grant, err error) {
			t.Helper()
			time.Sleep(time.Second)
			if now, gone := d.Get(g.Key); err != nil || gone != nil || now.State != Holds || now.Token != g.Token {
				t.Fatalf("%s: got %+v, %v and then %+v, %v", what, g, err, now, gone)
			}
			d.remove(Ask{Key: g.Key, By: me})
		}
		for i, late := range []func(Grant, Ask) Ask{
			func(_ Grant, ask Ask) Ask { return ask.waiting(30 * time.Second) },
			func(g Grant, ask Ask) Ask { return ask.renewing(g) },
		} {
			ask, gone, lives := exclusive("x", fmt.Sprint(i)), make(chan struct{}), make(chan struct{})
			g := d.put(ask.tied(lives).waiting(30 * time.Second))
			d.put(ask.tied(lives).renewing(g))
			d.put(late(g, ask.tied(gone)))
			close(gone)
			held("read after a renewal", g, nil)

			gone = make(chan struct{}) // the late one takes it, and the other is answered before its connection is seen to have ended
			g = d.put(ask.tied(gone))
			g, err := d.Put(t.Context(), late(g, ask.tied(lives)))
			close(gone)
			held("read before", g, err)
		}

		holder := exclusive("x", "0").ttl(MostTTL) // both wait at once
		d.put(holder)
		ask, gone, lives := exclusive("x", "2").waiting(30*time.Second), make(chan struct{}), make(chan struct{})
		time.AfterFunc(time.Second, func() { d.remove(holder) })
		var late sync.WaitGroup
		late.Go(func() {
			time.Sleep(500 * time.Millisecond)
			_, _ = d.Put(t.Context(), ask.tied(gone)) // whom nobody hears
		})
		g := d.put(ask.tied(lives))
		close(gone)
		held("read while it waits", g, nil)
		late.Wait()
	})
}

// Whose turn comes while the daemon leaves is told what passes: it asks the next one.
func TestWhoseTurnComesWhileTheDaemonLeavesIsToldToAskAgain(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d, other := open(t, db, "a"), open(t, db, "b")
		for _, ask := range []func(name, client string) Ask{exclusive, campaign} {
			other.put(ask("x", "0").ttl(MostTTL))
		}
		kept := exclusive("y", "1") // for which the session waits
		d.put(kept)
		var waiting sync.WaitGroup
		for _, ask := range []func(name, client string) Ask{exclusive, campaign} {
			waiting.Go(func() { d.fails(ask("x", "1").waiting(30*time.Second), ErrNoSession) })
		}
		time.Sleep(time.Second)
		waiting.Go(func() {
			if err := d.session.Leave(t.Context()); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		other.remove(exclusive("x", "0"))
		other.remove(campaign("x", "0"))
		time.Sleep(2 * time.Second)
		d.remove(kept)
		waiting.Wait()
	})
}

func TestALeaderPublishes(t *testing.T) {
	bubble(t, func(t *testing.T, db *coordd.DB) {
		d := open(t, db, "a")
		ask := campaign("x", "1")
		say := func(s string) Ask { ask.Value = &s; return ask }
		value := func() string {
			l, err := election.Current(t.Context(), db, "x")
			if err != nil {
				t.Fatal(err)
			}
			return l.Value
		}
		g := d.put(say("here"))
		if !d.Leads("x") || d.Leads("y") || value() != "here" || g.Value != "here" {
			t.Fatalf("got %v, %v, %q and %+v", d.Leads("x"), d.Leads("y"), value(), g)
		}
		if g = d.put(say("there")); value() != "there" || g.Value != "there" {
			t.Fatalf("got %q and %+v", value(), g)
		}
		ask.Value = nil // which leaves it
		if d.put(ask); value() != "there" {
			t.Fatalf("got %q", value())
		}
		d.remove(ask)
		if d.Leads("x") {
			t.Fatal("it leads after it has resigned")
		}
	})
}
