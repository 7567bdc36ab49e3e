package heartbeat

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestDrainingAndBack(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		s := joined(t, db, Config{Name: "a", TTL: shortTTL})
		if err := Undrain(t.Context(), db, s.ID()); !errors.Is(err, coordd.ErrNone) {
			t.Fatalf("undrain of one that does not drain: got %v, want %v", err, coordd.ErrNone)
		}
		if err := Drain(t.Context(), db, s.ID()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it knows", s.Draining)
		beats := s.Stats().Beats
		eventually(t, "it beats on", func() bool { return s.Stats().Beats > beats+1 })
		if got := stateOf(t, db, s.ID()); got != Draining || !s.Valid() {
			t.Fatalf("got %s, valid %v, want %s and valid", got, s.Valid(), Draining)
		}
		if err := Undrain(t.Context(), db, s.ID()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it knows", func() bool { return !s.Draining() })
		for _, operate := range []func(context.Context, *coordd.DB, string) error{Drain, Undrain, Forget} {
			if err := operate(t.Context(), db, "nobody"); !errors.Is(err, coordd.ErrNone) {
				t.Fatalf("got %v, want %v", err, coordd.ErrNone)
			}
		}
	})
}

func TestADrainingMemberThatDiesIsSeenDead(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		joined(t, db, Config{Name: "survivor", TTL: shortTTL})
		s := joined(t, db, Config{Name: "a", TTL: shortTTL})
		if err := Drain(t.Context(), db, s.ID()); err != nil {
			t.Fatal(err)
		}
		s.kill()
		eventually(t, "its death", func() bool { return stateOf(t, db, s.ID()) == Dead })
	})
}

func TestAForgottenMemberIsLostAndThenDead(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		joined(t, db, Config{Name: "survivor", TTL: shortTTL})
		s := joined(t, db, Config{Name: "a", TTL: shortTTL})
		if err := Forget(t.Context(), db, s.ID()); err != nil {
			t.Fatal(err)
		}
		within(t, s.Done(), "the session lost")
		if !errors.Is(s.Err(), coordd.ErrLost) {
			t.Fatalf("got %v, want %v", s.Err(), coordd.ErrLost)
		}
		eventually(t, "its death", func() bool { return stateOf(t, db, s.ID()) == Dead })
		if silent := s.now() - s.sent; silent < window(shortTTL) {
			t.Fatalf("declared dead %v after its last beat was sent, want %v at least", silent, window(shortTTL))
		}
	})
}

// M4 and E1: each change of state is one event, in order, with what the member last was.
func TestEachChangeIsOneEvent(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a := joined(t, db, Config{Name: "a", TTL: shortTTL, Labels: map[string]string{"zone": "b"}})
		b := joined(t, db, Config{Name: "b", TTL: shortTTL})
		c := joined(t, db, Config{Name: "c", TTL: shortTTL})
		if err := Drain(t.Context(), db, a.ID()); err != nil {
			t.Fatal(err)
		}
		if err := Drain(t.Context(), db, a.ID()); !errors.Is(err, coordd.ErrNone) {
			t.Fatalf("a second drain: got %v, want %v", err, coordd.ErrNone)
		}
		c.kill()
		eventually(t, "c dead", func() bool { return stateOf(t, db, c.ID()) == Dead }) // by either of two
		if err := a.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		type event struct{ revision, subject, action, member, data string }
		events, err := coordd.All(t.Context(), db.Queries, func(e *event) []any {
			return []any{&e.revision, &e.subject, &e.action, &e.member, &e.data}
		}, `select revision, subject, action, member_id, data from coordd_events order by revision`)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range events {
			got = append(got, e.revision+" "+e.subject+" "+e.action)
		}
		want := []string{"1 a joined", "2 b joined", "3 c joined", "4 a draining", "5 c died", "6 a restarting", "7 b left"}
		if !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		if want := `{"id":"` + a.ID() + `","name":"a","address":"","version":"","labels":{"zone":"b"}}`; events[5].data != want || events[5].member != a.ID() {
			t.Fatalf("data: got %s of %s, want %s", events[5].data, events[5].member, want)
		}
	})
}

func TestPurgeDeletesWhatHasEndedLongAgo(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		living := joined(t, db, Config{Name: "living"})
		ended := joined(t, db, Config{Name: "ended"})
		if err := ended.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := Purge(t.Context(), db, time.Hour); n != 0 || err != nil {
			t.Fatalf("within the hour: got %d and %v, want 0", n, err)
		}
		if n, err := Purge(t.Context(), db, -time.Minute); n != 1 || err != nil { // the database's clock may be behind
			t.Fatalf("after it: got %d and %v, want 1", n, err)
		}
		if a, b := stateOf(t, db, living.ID()), stateOf(t, db, ended.ID()); a != Alive || b != "absent" {
			t.Fatalf("got %s and %s, want %s and absent", a, b, Alive)
		}
	})
}

func TestLoadRidesOnTheBeat(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		load := Load{CPU: 0.25, Memory: 0.5, Average: 1.5, Extra: map[string]float64{"queue": 7}}
		s := joined(t, db, Config{Name: "a", TTL: shortTTL, Load: func() Load { return load }})
		joined(t, db, Config{Name: "tells none", TTL: shortTTL})
		eventually(t, "a beat", func() bool { return s.Stats().Beats > 0 })
		members, err := Members(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		if got := members[0].Load; got == nil || got.CPU != load.CPU || got.Memory != load.Memory || got.Average != load.Average || !maps.Equal(got.Extra, load.Extra) {
			t.Fatalf("got %+v, want %+v", got, load)
		}
		if got := members[1].Load; got != nil {
			t.Fatalf("got %+v, want none", got)
		}
	})
}
