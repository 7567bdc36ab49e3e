package heartbeat

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
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
		dbtest.Eventually(t, "it knows", s.Draining)
		beats := s.Stats().Beats
		dbtest.Eventually(t, "it beats on", func() bool { return s.Stats().Beats > beats+1 })
		if got := stateOf(t, db, s.ID()); got != Draining || !s.Valid() {
			t.Fatalf("got %s, valid %v, want %s and valid", got, s.Valid(), Draining)
		}
		if err := Undrain(t.Context(), db, s.ID()); err != nil {
			t.Fatal(err)
		}
		dbtest.Eventually(t, "it knows", func() bool { return !s.Draining() })
		for _, operate := range []func(context.Context, *coordd.DB, string, ...By) error{Drain, Undrain, Forget} {
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
		dbtest.Eventually(t, "its death", func() bool { return stateOf(t, db, s.ID()) == Dead })
	})
}

// Whoever looks at a row with a lock keeps one death from being declared, and not all.
func TestALockedRowKeepsOneDeathFromBeingDeclared(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := schema(t)
			db := dbtest.Migrated(t, dsn)
			survivor := joined(t, db, Config{Name: "survivor", TTL: shortTTL})
			first, second := joined(t, db, Config{Name: "a", TTL: shortTTL}), joined(t, db, Config{Name: "b", TTL: shortTTL})
			first.kill()
			second.kill()
			// The one that a look finds first.
			v, err := survivor.view()
			if err != nil || len(v.others) != 2 {
				t.Fatalf("got %+v, %v, want two others", v.others, err)
			}
			locked, free := v.others[0].id, v.others[1].id
			patient := dbtest.OpenPatient(t, dsn)
			lock, err := patient.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Rollback()
			var seq int64
			if err := patient.On(lock).Get(t.Context(), []any{&seq}, `select seq from coordd_heartbeats where member_id = ? for update`, locked); err != nil {
				t.Fatal(err)
			}
			dbtest.Eventually(t, "the death of the other", func() bool { return stateOf(t, db, free) == Dead })
			if got := stateOf(t, db, locked); got != Alive {
				t.Fatalf("whose row is locked: got %s, want %s", got, Alive)
			}
			if err := lock.Rollback(); err != nil {
				t.Fatal(err)
			}
			dbtest.Eventually(t, "its death", func() bool { return stateOf(t, db, locked) == Dead })
		})
	}
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
		dbtest.Eventually(t, "its death", func() bool { return stateOf(t, db, s.ID()) == Dead })
		if silent := s.now() - s.sent; silent < window(shortTTL) {
			t.Fatalf("declared dead %v after its last beat was sent, want %v at least", silent, window(shortTTL))
		}
	})
}

// Each change of state is one event, in order, with what the member last was.
func TestM4EachChangeIsOneEvent(t *testing.T) {
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
		dbtest.Eventually(t, "c dead", func() bool { return stateOf(t, db, c.ID()) == Dead }) // by either of two
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

// Who asked for a change is recorded with it: both or neither.
func TestWhoAskedIsRecordedWithTheChange(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		s := joined(t, db, Config{Name: "a"})
		by := By{Actor: "ci", Remote: "10.0.0.9:4711", Via: "POST /v1/members/a/drain", Reason: "kernel \"update\""}
		if err := Drain(t.Context(), db, s.ID(), by); err != nil {
			t.Fatal(err)
		}
		if err := Drain(t.Context(), db, s.ID(), by); !errors.Is(err, coordd.ErrNone) {
			t.Fatalf("a second drain: got %v, want %v", err, coordd.ErrNone)
		}
		page, err := journal.Read(t.Context(), db.Queries, 1, 10) // after joined
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Events) != 2 || page.Events[0].Action != "draining" {
			t.Fatalf("got %+v, want the change and who asked for it", page.Events)
		}
		var got By
		e := page.Events[1]
		if err := json.Unmarshal([]byte(e.Data), &got); err != nil || got != by {
			t.Fatalf("got %+v and %v, want %+v", got, err, by)
		}
		if e.Topic != AuditTopic || e.Subject != "a" || e.Action != "drain" || e.MemberID != s.ID() {
			t.Fatalf("got %+v", e)
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

// A beat that takes its time, or somebody who looks with a lock, is none of Purge's business.
func TestPurgeDoesNotWaitForTheLiving(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := schema(t)
			db := dbtest.Migrated(t, dsn)
			living, ended := joined(t, db, Config{Name: "living"}), joined(t, db, Config{Name: "ended"})
			if err := ended.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			patient := dbtest.OpenPatient(t, dsn)
			lock, err := patient.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Rollback()
			if n, err := patient.On(lock).Exec(t.Context(), `update coordd_heartbeats set seq = seq + 1 where member_id = ?`, living.ID()); n != 1 || err != nil {
				t.Fatalf("got %d rows, %v", n, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), dbtest.Patience)
			defer cancel()
			if n, err := Purge(ctx, db, -time.Minute); n != 1 || err != nil {
				t.Fatalf("got %d and %v, want 1", n, err)
			}
		})
	}
}

func TestLoadRidesOnTheBeat(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		load := Load{CPU: 0.25, Memory: 0.5, Average: 1.5, Extra: map[string]float64{"queue": 7}}
		s := joined(t, db, Config{Name: "a", TTL: shortTTL, Load: func() Load { return load }})
		joined(t, db, Config{Name: "tells none", TTL: shortTTL})
		dbtest.Eventually(t, "a beat", func() bool { return s.Stats().Beats > 0 })
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
