package main

import (
	"context"
	"database/sql"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/lock"
)

// takesTurns does all that is done about leases: one is held alone, then by another who has
// waited to share it; each guards a transaction. It reads the views too.
func takesTurns(t *testing.T, db *coordd.DB, s *heartbeat.Session) {
	t.Helper()
	nothing := func(*sql.Tx) error { return nil }
	alone, err := lock.Acquire(t.Context(), s, lock.Exclusive("x"))
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan error, 1)
	go func() {
		next <- lock.Do(t.Context(), s, lock.Shared("x"), func(ctx context.Context, shared *lock.Held) error {
			return shared.InTx(ctx, nothing)
		})
	}()
	dbtest.Eventually(t, "one who waits", func() bool {
		info, err := lock.Inspect(t.Context(), db, "x")
		return err == nil && len(info.Waiters) == 1
	})
	if err := alone.InTx(t.Context(), nothing); err != nil {
		t.Error(err)
	}
	if err := alone.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-next; err != nil {
		t.Error(err)
	}
	for _, view := range []string{"coordd_v_leaders", "coordd_v_locks"} {
		var n int
		if err := db.Get(t.Context(), []any{&n}, `select count(*) from `+view); err != nil {
			t.Errorf("%s: %v", view, err)
		}
	}
}
