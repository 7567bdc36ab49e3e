package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// A lease that was removed goes on above all the tokens that it had.
func TestAnIdleLeaseIsRemovedAndItsTokensAreNot(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b := joined(t, db, "a"), joined(t, db, "b")
		for range 3 {
			released(t, tried(t, a, alone))
		}
		kept := tried(t, a, Want{Name: "lock/held"})
		reader := tried(t, a, Want{Name: "lock/shared", Limit: Unlimited})
		old := tried(t, a, Want{Name: "lock/old"})
		released(t, old)
		if n, err := Tidy(t.Context(), db, 0); n != 2 || err != nil {
			t.Fatalf("got %d removed, %v, want the two that nobody holds", n, err)
		}
		if !kept.Valid() || !reader.Valid() {
			t.Fatal("what is held was removed")
		}
		for _, who := range []string{"who remembers its token", "who does not"} {
			s := a
			if who == "who does not" {
				s = b
			}
			h := tried(t, s, alone)
			if h.Token() <= 3 {
				t.Fatalf("%s: got token %d, want one above 3", who, h.Token())
			}
			tx, err := db.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Guard(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			tx.Rollback()
			released(t, h)
		}
		released(t, kept)
		released(t, reader)
		if _, err := Try(t.Context(), b, Want{Name: "lock/held"}); err != nil && !errors.Is(err, coordd.ErrHeld) {
			t.Fatal(err)
		}
	})
}

// What has ended is cleared away while somebody's beat is under way, and without waiting for it.
func TestNoBeatIsInTheWayOfClearing(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		if product, err := db.Product(t.Context()); err != nil || product == "SQLite" {
			return // whoever writes there locks everything
		}
		a := joinedWith(t, db, heartbeat.Config{Name: "a", TTL: patientTTL})
		count := func(stmt string) (n int) {
			if err := db.Get(t.Context(), []any{&n}, stmt); err != nil {
				t.Fatal(err)
			}
			return n
		}
		stand := func(id, member string) {
			if err := of(a).enqueue(t.Context(), alone, id); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(t.Context(), `update coordd_waiters set member_id = ? where id = ?`, member, id); err != nil {
				t.Fatal(err)
			}
		}
		of(a).stand("living")
		stand("living", a.ID())
		stand("ended", "nobody")
		tx, err := dbtest.OpenPatient(t, dsn).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := db.On(tx).Exec(t.Context(), `update coordd_heartbeats set seq = seq + 1 where member_id = ?`, a.ID()); err != nil {
			t.Fatal(err)
		}
		of(a).wakeFirst(t.Context(), alone.Name)
		if n := count(`select count(*) from coordd_waiters`); n != 1 {
			t.Errorf("got %d places after a release, want that of who lives", n)
		}
		stand("purged", "nobody")
		if _, err := db.Exec(t.Context(), stmtShare, "purged", alone.Name, "nobody", 1, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := Tidy(t.Context(), db, time.Hour); err != nil {
			t.Fatal(err)
		}
		if n := count(`select (select count(*) from coordd_waiters) + (select count(*) from coordd_shared)`); n != 1 {
			t.Errorf("got %d rows after Tidy, want that of who lives", n)
		}
	})
}
