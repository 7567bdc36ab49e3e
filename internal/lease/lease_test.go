package lease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestARightIsHadByOne(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b := joined(t, db, "a"), joined(t, db, "b")
		first := tried(t, a, alone)
		if !first.Valid() || first.Token() != 1 {
			t.Fatalf("got valid %v, token %d, want the first", first.Valid(), first.Token())
		}
		for _, s := range []string{"another", "the same"} {
			who := b
			if s == "the same" {
				who = a
			}
			_, err := Try(t.Context(), who, alone)
			if held := new(HeldError); !errors.As(err, &held) || held.Holder != a.ID() || held.Token != 1 || !errors.Is(err, coordd.ErrHeld) {
				t.Fatalf("%s session: got %v, want held by %s", s, err, a.ID())
			}
		}
		released(t, first)
		released(t, first)
		if first.Valid() || !errors.Is(first.Err(), ErrReleased) {
			t.Fatalf("after its release: got valid %v, %v", first.Valid(), first.Err())
		}
		second := tried(t, b, alone)
		if second.Token() != 2 {
			t.Fatalf("token: got %d, want 2", second.Token())
		}
		released(t, second)
	})
}

func TestWhatIsShared(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b := joined(t, db, "a"), joined(t, db, "b")
		pair := Want{Name: "lock/x", Limit: 2}
		one, two := tried(t, a, pair), tried(t, b, pair)
		if one.Token() == two.Token() {
			t.Fatalf("both have token %d", one.Token())
		}
		for what, w := range map[string]Want{"a third": pair, "alone": alone} {
			if _, err := Try(t.Context(), a, w); !errors.Is(err, coordd.ErrHeld) {
				t.Fatalf("%s: got %v, want %v", what, err, coordd.ErrHeld)
			}
		}
		released(t, one)
		three := tried(t, a, pair)
		released(t, two)
		released(t, three)
		whole := tried(t, a, alone)
		if _, err := Try(t.Context(), b, pair); !errors.Is(err, coordd.ErrHeld) {
			t.Fatalf("beside who holds it alone: got %v, want %v", err, coordd.ErrHeld)
		}
		released(t, whole)
	})
}

// The clock says that a right has ended before anybody was told: it is suspended, and may not be
// taken for the loss of the session.
func TestTheClockEndsARightFirst(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		h := tried(t, brief(t, db, "a"), alone)
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		<-h.Context().Done()
		untold := &Held{k: h.k, want: h.want, ctx: t.Context()}
		for _, one := range []*Held{h, untold} {
			if err := one.Err(); one.Valid() || !errors.Is(err, coordd.ErrLost) || !errors.Is(err, heartbeat.ErrSuspended) {
				t.Fatalf("got valid %v, %v, want %v and %v", one.Valid(), err, coordd.ErrLost, heartbeat.ErrSuspended)
			}
		}
		tap.Disturb(nil)
	})
}

// A row that somebody keeps locked (a guard of a frozen holder, or a person at a console) keeps
// Try for a TTL and no longer, and Acquire for as long as it takes; nothing is left behind.
func TestALockedRowIsWaitedFor(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		a, b := brief(t, db, "a"), brief(t, dbtest.Open(t, dsn), "b")
		if product, err := db.Product(t.Context()); err != nil || product == "SQLite" {
			return // whoever writes there locks everything
		}
		released(t, tried(t, a, alone))
		tx, err := dbtest.OpenPatient(t, dsn).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.On(tx).Exec(t.Context(), `update coordd_leases set guards = guards + 1 where name = ?`, alone.Name); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		h, err := Try(t.Context(), a, alone)
		if took := time.Since(began); h != nil || !errors.Is(err, coordd.ErrSlow) && !errors.Is(err, coordd.ErrContended) || took > shortTTL+busy {
			t.Fatalf("try: after %v got %v, want %v after %v", took, err, coordd.ErrSlow, shortTTL)
		}
		got := make(chan *Held, 1)
		go func() { got <- acquired(t, b, alone) }()
		select {
		case h := <-got:
			t.Fatalf("acquire: got token %d of a locked row", h.Token())
		case <-time.After(2 * shortTTL):
		}
		tx.Rollback()
		h = <-got
		// Only what is unknown may have moved the token on.
		if h.Token() < 2 || h.Token() > 20 {
			t.Fatalf("got token %d", h.Token())
		}
		t.Logf("token %d", h.Token())
		released(t, h)
		dbtest.Eventually(t, "nobody holds it", func() bool {
			info, err := Inspect(t.Context(), db, alone.Name)
			return err == nil && len(info.Holders) == 0
		})
	})
}

// What it costs to take a right that nobody contends for, and to give it back: a lock two
// statements where the session had it last, and three where it has to ask for the token.
func TestWhatARightCosts(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		one := joinedWith(t, db, heartbeat.Config{Name: "one", TTL: patientTTL})
		other := joinedWith(t, db, heartbeat.Config{Name: "other", TTL: patientTTL})
		permit, office := Want{Name: "lock/permit", Limit: 2}, Want{Name: "election/office", Recorded: true}
		bounds, rings := 0, 0 // of a transaction, where a server can end it; of a change that is an event, where the database can wake others
		if product, err := db.Product(t.Context()); err == nil && product == "PostgreSQL" {
			bounds, rings = 1, 2
		}
		for _, cycle := range []struct {
			what  string
			by    *heartbeat.Session
			of    Want
			costs int
		}{
			{"a lock that there has never been", one, alone, 5},
			{"a lock that it had last", one, alone, 2},
			{"a lock that another had", other, alone, 3},
			{"a lock that it had last", other, alone, 2},
			{"a lock that it had, and then another", one, alone, 4},
			{"a permit that there has never been", one, permit, 8 + bounds},
			{"a permit", one, permit, 6 + bounds},
			{"an office that there has never been", one, office, 17 + 2*bounds + rings},
			{"an office", one, office, 15 + 2*bounds + rings},
		} {
			if got := statements(t, tap, func() { released(t, acquired(t, cycle.by, cycle.of)) }); len(got) != cycle.costs {
				t.Errorf("%s: got %d statements, want %d: %q", cycle.what, len(got), cycle.costs, got)
			}
		}
	})
}

// statements are what passes while something is done, without what sessions send by themselves.
func statements(t *testing.T, tap *dbtest.Tap, do func()) (passed []string) {
	t.Helper()
	var mu sync.Mutex
	tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
		mu.Lock()
		defer mu.Unlock()
		if !isBeat(stmt) && !isLook(stmt) && !isSweep(stmt) {
			passed = append(passed, kindOf(stmt))
		}
		return do()
	})
	do()
	tap.Disturb(nil)
	return passed
}

// What is given back while the session looks at all that it has is not given back once more.
func TestWhatIsGivenBackMeanwhileIsNoStray(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		s := joined(t, db, "a")
		h, other := tried(t, s, alone), tried(t, s, Want{Name: "lock/other"})
		swept, releases := false, 0
		var after []string
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			err := do()
			switch {
			case isSweep(stmt) && !swept:
				swept = true
				released(t, h)
				releases = len(after)
			case !isBeat(stmt) && !isLook(stmt) && !isSweep(stmt):
				after = append(after, stmt)
			}
			return err
		})
		time.Sleep(2 * sweepEvery * shortTTL)
		synctest.Wait()
		tap.Disturb(nil)
		if releases == 0 || len(after) != releases {
			t.Errorf("got %d statements by a release, and %q in all; want some, and no more", releases, after)
		}
		released(t, other)
	})
}
