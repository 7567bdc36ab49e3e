package heartbeat

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// shortTTL makes real-time tests short, and leaves a loaded machine some room.
var shortTTL = dbtest.Stretch(2 * time.Second)

// joined joins, and leaves with the test.
func joined(t *testing.T, db *coordd.DB, cfg Config) *Session {
	t.Helper()
	s, err := Join(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) })
	return s
}

// kill ends a session as a crash would: nothing is said to anybody.
func (s *Session) kill() {
	s.end(errors.New("killed"))
	s.loops.Wait()
}

// stateOf reads one member as others see it.
func stateOf(t *testing.T, db *coordd.DB, id string) State {
	t.Helper()
	members, err := Members(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.ID == id {
			return m.State
		}
	}
	return "absent"
}

// declareDead declares a session dead as an observer would that had watched it.
func declareDead(t *testing.T, db *coordd.DB, id string) {
	t.Helper()
	dbtest.Eventually(t, "a death by compare-and-set", func() bool {
		var seq int64
		if err := db.Get(t.Context(), []any{&seq}, `select seq from coordd_heartbeats where member_id = ?`, id); err != nil {
			t.Fatal(err)
		}
		changed, err := db.Exec(t.Context(), stmtDeclareDead, id, seq)
		if err != nil {
			t.Fatal(err)
		}
		return changed == 1
	})
}

func within(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(dbtest.Patience):
		t.Fatalf("after %v: got nothing, want %s", dbtest.Patience, what)
	}
}
