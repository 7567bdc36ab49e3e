package coorddtest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/coorddtest"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/migrations"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func joined(t *testing.T, db *coordd.DB, name string) *heartbeat.Session {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Leave(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestAMemberJoins(t *testing.T) {
	db := coorddtest.SQLite(t)
	s := joined(t, db, "app-7")
	members, err := heartbeat.Members(t.Context(), db)
	if err != nil || len(members) != 1 || members[0].ID != s.ID() || !s.Valid() {
		t.Fatalf("got %v and %v, want app-7 alone", members, err)
	}
}

// Ten minutes of three servers that watch each other take no time.
func TestTimeIsVirtualInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := coorddtest.SQLite(t)
		var sessions []*heartbeat.Session
		for i := range 3 {
			sessions = append(sessions, joined(t, db, fmt.Sprint("app-", i)))
		}
		time.Sleep(10 * time.Minute)
		for _, s := range sessions {
			if !s.Valid() {
				t.Fatalf("%s: got %v, want a valid session", s.Name(), s.Err())
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		seen := 0
		for _, err := range events.Watch(ctx, db, 0) {
			if err != nil {
				t.Fatal(err)
			}
			seen++
		}
		if seen != len(sessions) {
			t.Fatalf("got %d events, want one for each of %d", seen, len(sessions))
		}
	})
}

// Who waits for a transaction waits in virtual time, and hears of the end of his context.
func TestAnOpenTransactionHoldsUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := coorddtest.SQLite(t)
		s := joined(t, db, "app-7")
		tx, err := db.Pool().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := heartbeat.Members(ctx, db); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want %v", err, context.DeadlineExceeded)
		}
		time.Sleep(heartbeat.DefaultTTL)
		if s.Valid() {
			t.Fatal("after a TTL without a beat: got a valid session")
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(heartbeat.DefaultTTL)
		if !s.Valid() {
			t.Fatalf("got %v, want a valid session", s.Err())
		}
	})
}

func TestEachDatabaseIsItsOwn(t *testing.T) {
	var ended *coordd.DB
	t.Run("its test", func(t *testing.T) {
		one, other := coorddtest.SQLite(t), coorddtest.SQLite(t)
		joined(t, one, "app-7")
		if members, err := heartbeat.Members(t.Context(), other); err != nil || len(members) != 0 {
			t.Fatalf("got %v and %v, want nobody", members, err)
		}
		if err := migrations.Up(t.Context(), one); err != nil { // finds nothing to do
			t.Fatal(err)
		}
		ended = one
	})
	if _, err := heartbeat.Members(t.Context(), ended); err == nil {
		t.Fatal("after its test: got members, want an error")
	}
}

// Members of a pool of any size beat beside each other; the race detector watches.
func TestManyShareOneDatabase(t *testing.T) {
	db := coorddtest.SQLite(t)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			s, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: fmt.Sprint("app-", i)})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Leave(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if revision, err := events.Revision(t.Context(), db); err != nil || revision != 40 {
		t.Fatalf("got revision %d and %v, want 40", revision, err)
	}
}
