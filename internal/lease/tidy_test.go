package lease

import (
	"errors"
	"testing"

	"github.com/coordd/coordd"
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
