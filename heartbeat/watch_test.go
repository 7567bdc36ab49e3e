package heartbeat

import (
	"context"
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

func TestWatchYieldsTheLivingWheneverTheyChange(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		watched, tap := dbtest.OpenTapped(t, dsn)
		views := make(chan []Member)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		defer func() { cancel(); <-done }()
		failures := 0
		go func() {
			defer close(done)
			for view, err := range Watch(ctx, watched) {
				if err != nil {
					failures++
					continue
				}
				select {
				case views <- view:
				case <-ctx.Done():
				}
			}
		}()
		shows := func(what string, want ...State) {
			t.Helper()
			view := <-views
			got := make([]State, 0, len(view))
			for _, m := range view {
				got = append(got, m.State)
			}
			if len(got) != len(want) {
				t.Fatalf("%s: got %v, want %v", what, got, want)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("%s: got %v, want %v", what, got, want)
				}
			}
		}
		shows("at first")
		a := joined(t, db, Config{Name: "a", TTL: shortTTL})
		shows("after a join", Alive)
		if err := Drain(t.Context(), db, a.ID()); err != nil {
			t.Fatal(err)
		}
		shows("after a drain", Draining)
		failed := make(chan struct{}, 100)
		tap.Disturb(func(context.Context, string, func() error) error {
			select {
			case failed <- struct{}{}:
			default:
			}
			return dbtest.ErrReplyLost
		})
		b := joined(t, db, Config{Name: "b", TTL: shortTTL})
		<-failed
		<-failed // the outage is told once
		tap.Disturb(nil)
		shows("after an outage", Draining, Alive)
		b.kill()
		shows("after a death", Draining)
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		shows("after all have gone")
		cancel()
		<-done
		if failures != 1 {
			t.Fatalf("errors told: got %d, want 1", failures)
		}
	})
}
