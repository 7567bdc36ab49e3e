package heartbeat

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/clock/clocktest"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestMembersShowWhatJoinSaid(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		cfg := Config{Name: "app-7", Address: "10.0.0.7:8080", Version: "1.2.3",
			Labels: map[string]string{"zone": "b", "empty": "", "quote": `"'\é`}, TTL: 3 * time.Second}
		s := joined(t, db, cfg)
		members, err := Members(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		if len(members) != 1 {
			t.Fatalf("members: got %v, want one", members)
		}
		m := members[0]
		got := Member{ID: m.ID, Name: m.Name, Address: m.Address, Version: m.Version, State: m.State, TTL: m.TTL}
		want := Member{ID: s.ID(), Name: cfg.Name, Address: cfg.Address, Version: cfg.Version, State: Alive, TTL: cfg.TTL}
		if got.ID != want.ID || got.Name != want.Name || got.Address != want.Address || got.Version != want.Version || got.State != want.State || got.TTL != want.TTL {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if !maps.Equal(m.Labels, cfg.Labels) {
			t.Fatalf("labels: got %q, want %q", m.Labels, cfg.Labels)
		}
		if age := time.Since(m.Joined); age < -time.Minute || age > time.Minute {
			t.Fatalf("joined: got %v ago, want now", age)
		}
	})
}

func TestNamesAreComparedByteByByte(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		want := []string{"A", "a", "a a", "ä", "ａ"} // in the order of their bytes
		for _, name := range want {
			joined(t, db, Config{Name: name})
		}
		members, err := Members(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range members {
			got = append(got, m.Name)
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("got %q, want %q", got, want)
		}
		var same int
		if err := db.Get(t.Context(), []any{&same}, `select count(*) from coordd_members where name = ?`, "a"); err != nil {
			t.Fatal(err)
		}
		if same != 1 {
			t.Fatalf("members whose name is a: got %d, want 1", same)
		}
	})
}

func TestLeaveIsSeenAtOnce(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		s := joined(t, db, Config{Name: "a"})
		if !s.Valid() || s.Err() != nil {
			t.Fatalf("before: got valid %v, error %v, want valid", s.Valid(), s.Err())
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		for range 2 { // said twice, it is said once
			if err := s.Leave(cancelled); err != nil {
				t.Fatal(err)
			}
		}
		within(t, s.Done(), "the session done")
		if s.Valid() || !errors.Is(s.Err(), ErrLeft) {
			t.Fatalf("after: got valid %v, error %v, want %v", s.Valid(), s.Err(), ErrLeft)
		}
		if got := stateOf(t, db, s.ID()); got != Left {
			t.Fatalf("state: got %s, want %s", got, Left)
		}
	})
}

func TestADeadSessionIsLostForGood(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		s := joined(t, db, Config{Name: "a", TTL: shortTTL})
		declareDead(t, db, s.ID())
		within(t, s.Done(), "the session lost")
		if s.Valid() || !errors.Is(s.Err(), coordd.ErrLost) {
			t.Fatalf("got valid %v, error %v, want %v", s.Valid(), s.Err(), coordd.ErrLost)
		}
		if err := s.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := stateOf(t, db, s.ID()); got != Dead {
			t.Fatalf("state: got %s, want %s", got, Dead)
		}
	})
}

func TestASessionWhoseRowIsGoneIsLost(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		s := joined(t, db, Config{Name: "a", TTL: shortTTL})
		if _, err := db.Exec(t.Context(), `delete from coordd_heartbeats`); err != nil {
			t.Fatal(err)
		}
		within(t, s.Done(), "the session lost")
		if !errors.Is(s.Err(), coordd.ErrLost) || !strings.Contains(s.Err().Error(), "gone") {
			t.Fatalf("got %v, want %v, as its row is gone", s.Err(), coordd.ErrLost)
		}
	})
}

func TestAJoinWhoseReplyWasLostEntersOnce(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		var commits atomic.Int32
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			err := do()
			if stmt == "commit" && commits.Add(1) == 1 && err == nil {
				return dbtest.ErrReplyLost
			}
			return err
		})
		s := joined(t, db, Config{Name: "a"})
		members, err := Members(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		if len(members) != 1 || members[0].ID != s.ID() || commits.Load() != 2 {
			t.Fatalf("got %d commits and members %v, want 2 and one", commits.Load(), members)
		}
	})
}

func TestAnExhaustedPoolDoesNotEndTheSession(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		db.Pool().SetMaxOpenConns(3)
		s := joined(t, db, Config{Name: "a", TTL: 15 * time.Second, Beat: shortTTL / 3, Timeout: shortTTL / 4})
		for range 2 { // all that is left
			conn, err := db.Pool().Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		before, standstill := s.Stats(), clocktest.Watch()
		dbtest.Eventually(t, "six beats more", func() bool { return s.Stats().Beats >= before.Beats+6 })
		after, still := s.Stats(), standstill()
		if failed := after.Failures - before.Failures; failed > 2 && still < shortTTL/16 {
			t.Errorf("%d beats failed, and the machine stood still for %v at the most", failed, still)
		}
		if !s.Valid() || s.Err() != nil {
			t.Fatalf("the session ended: %v, %+v", s.Err(), after)
		}
	})
}

func TestAPoolOfOneConnectionWorks(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		db.Pool().SetMaxOpenConns(1)
		s := joined(t, db, Config{Name: "a", TTL: shortTTL})
		dbtest.Eventually(t, "three beats", func() bool { return s.Stats().Beats >= 3 })
		if got := stateOf(t, db, s.ID()); got != Alive {
			t.Fatalf("state: got %s, want %s", got, Alive)
		}
	})
}

func TestATTLOverTheLimitIsRefused(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		_, err := Join(t.Context(), db, Config{Name: "a", TTL: 16 * time.Second})
		if !errors.Is(err, coordd.ErrInvalid) || !strings.Contains(err.Error(), "max_ttl") {
			t.Fatalf("got %v, want %v with max_ttl", err, coordd.ErrInvalid)
		}
	})
}

func TestJoinRefusesAnEmptyDatabase(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Open(t, dsn)
		if _, err := Join(t.Context(), db, Config{Name: "a"}); !errors.Is(err, coordd.ErrSchema) {
			t.Fatalf("got %v, want %v", err, coordd.ErrSchema)
		}
	})
}

// At rest a member costs two statements a beat, however many there are.
func TestABeatCostsTwoStatements(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		others := dbtest.Migrated(t, dsn)
		for _, name := range []string{"b", "c", "d"} {
			joined(t, others, Config{Name: name, TTL: shortTTL})
		}
		db, tap := dbtest.OpenTapped(t, dsn)
		s := joined(t, db, Config{Name: "a", TTL: shortTTL})
		beats, statements := s.Stats().Beats, tap.Statements()
		dbtest.Eventually(t, "six beats", func() bool { return s.Stats().Beats >= beats+6 })
		s.kill()
		beats, statements = s.Stats().Beats-beats, tap.Statements()-statements
		if most := 2*int(beats) + 2; statements > most { // one of each may be under way at either end
			t.Fatalf("%d beats: got %d statements, want %d at most", beats, statements, most)
		}
	})
}
