package heartbeat

import (
	"context"
	"errors"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestRunJoinsAgainWhenTheSessionIsLost(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		sessions := make(chan *Session)
		ended := make(chan error)
		go func() {
			ended <- Run(ctx, db, Config{Name: "a", TTL: shortTTL}, func(ctx context.Context, s *Session) error {
				sessions <- s
				<-ctx.Done() // nobody joins again before this has returned
				if err := context.Cause(ctx); s.Err() != nil && !errors.Is(err, coordd.ErrLost) {
					t.Errorf("cause: got %v, want %v", err, coordd.ErrLost)
				}
				return ctx.Err()
			})
		}()
		first := <-sessions
		declareDead(t, db, first.ID())
		second := <-sessions
		if first.ID() == second.ID() || !second.Valid() {
			t.Fatalf("got %s again, valid %v; want a new and valid session", second.ID(), second.Valid())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatalf("Run: got %v, want nil", err)
		}
		if a, b := stateOf(t, db, first.ID()), stateOf(t, db, second.ID()); a != Dead || b != Left {
			t.Fatalf("states: got %s and %s, want %s and %s", a, b, Dead, Left)
		}
	})
}

func TestRunReturnsWhatItsWorkReturned(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		for _, want := range []error{nil, errors.New("enough")} {
			var id string
			got := Run(t.Context(), db, Config{Name: "a"}, func(_ context.Context, s *Session) error {
				id = s.ID()
				return want
			})
			if !errors.Is(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
			if got := stateOf(t, db, id); got != Left {
				t.Fatalf("state: got %s, want %s", got, Left)
			}
		}
	})
}

func TestRunTellsAtOnceWhatIsWrongFromTheStart(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Open(t, dsn) // not migrated
		err := Run(t.Context(), db, Config{Name: "a"}, func(context.Context, *Session) error {
			t.Error("the work ran without a session")
			return nil
		})
		if !errors.Is(err, coordd.ErrSchema) {
			t.Fatalf("got %v, want %v", err, coordd.ErrSchema)
		}
	})
}
