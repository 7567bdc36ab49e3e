package election

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(beCandidate) != "" {
		candidateMain()
	}
	dbtest.Main(m)
}

// shortTTL makes real-time tests short, and leaves a loaded machine some room.
var shortTTL = dbtest.Stretch(2 * time.Second)

// joined joins for longer than a busy machine stands still, beats as if its TTL were short, and leaves with the test.
func joined(t *testing.T, db *coordd.DB, name string) *heartbeat.Session {
	t.Helper()
	return joinedWith(t, db, heartbeat.Config{Name: name, TTL: 15 * time.Second, Beat: shortTTL / 3})
}

// brief joins for a short time: its session is to end.
func brief(t *testing.T, db *coordd.DB, name string) *heartbeat.Session {
	t.Helper()
	return joinedWith(t, db, heartbeat.Config{Name: name, TTL: shortTTL})
}

func joinedWith(t *testing.T, db *coordd.DB, cfg heartbeat.Config) *heartbeat.Session {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) })
	return s
}

// running runs a candidate until the test ends, or it is stopped; its work waits for its end.
func running(t *testing.T, s *heartbeat.Session, cfg Config) (led <-chan *Leadership, stop func() error) {
	t.Helper()
	terms := make(chan *Leadership, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, s, cfg, func(ctx context.Context, l *Leadership) error {
			terms <- l
			<-ctx.Done()
			return nil
		})
	}()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { stop() })
	return terms, stop
}

func next(t *testing.T, led <-chan *Leadership, what string) *Leadership {
	t.Helper()
	select {
	case l := <-led:
		return l
	case <-time.After(dbtest.Patience):
		t.Fatalf("after %v: got nothing, want %s", dbtest.Patience, what)
		return nil
	}
}

func TestOneLeadsAndTheNextFollows(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		if _, err := Current(t.Context(), db, "x"); !errors.Is(err, coordd.ErrNone) {
			t.Fatalf("before anybody campaigned: got %v, want %v", err, coordd.ErrNone)
		}
		a, b := joined(t, db, "a"), joined(t, db, "b")
		ledA, stopA := running(t, a, Config{Name: "x", Value: "http://a"})
		first := next(t, ledA, "a leads")
		ledB, stopB := running(t, b, Config{Name: "x"})
		leader, err := Current(t.Context(), db, "x")
		if err != nil || leader.MemberID != a.ID() || leader.Name != "a" || leader.Term != first.Term() || leader.Value != "http://a" {
			t.Fatalf("got %+v, %v, want a", leader, err)
		}
		dbtest.Eventually(t, "a candidate", func() bool {
			info, err := Inspect(t.Context(), db, "x")
			return err == nil && len(info.Candidates) == 1 && info.Candidates[0].MemberID == b.ID()
		})
		if err := stopA(); err != nil {
			t.Fatal(err)
		}
		second := next(t, ledB, "b leads")
		if second.Term() <= first.Term() || first.Valid() || !second.Valid() {
			t.Fatalf("got terms %d and %d, valid %v and %v", first.Term(), second.Term(), first.Valid(), second.Valid())
		}
		if err := stopB(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestALeaderThatDrainsResigns(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b := joined(t, db, "a"), joined(t, db, "b")
		cfg := Config{Name: "x", HealthEvery: 50 * time.Millisecond}
		ledA, _ := running(t, a, cfg)
		first := next(t, ledA, "a leads")
		ledB, _ := running(t, b, cfg)
		if err := heartbeat.Drain(t.Context(), db, a.ID()); err != nil {
			t.Fatal(err)
		}
		next(t, ledB, "b leads")
		if cause := context.Cause(first.Context()); !errors.Is(cause, ErrUnfit) {
			t.Fatalf("cause: got %v, want %v", cause, ErrUnfit)
		}
	})
}

func TestALeadershipIsTransferred(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b, c := joined(t, db, "a"), joined(t, db, "b"), joined(t, db, "c")
		ledA, _ := running(t, a, Config{Name: "x"})
		first := next(t, ledA, "a leads")
		running(t, b, Config{Name: "x"})
		candidates := func(n int) {
			dbtest.Eventually(t, "candidates", func() bool {
				info, err := Inspect(t.Context(), db, "x")
				return err == nil && len(info.Candidates) == n
			})
		}
		candidates(1)
		ledC, _ := running(t, c, Config{Name: "x"})
		candidates(2)
		if err := Transfer(t.Context(), db, "x", "nobody", "me", "why", time.Minute); !errors.Is(err, coordd.ErrNone) {
			t.Fatalf("to nobody: got %v, want %v", err, coordd.ErrNone)
		}
		if err := Transfer(t.Context(), db, "x", c.ID(), "me", "why", time.Minute); err != nil {
			t.Fatal(err)
		}
		next(t, ledC, "c leads")
		if cause := context.Cause(first.Context()); !errors.Is(cause, ErrRequested) {
			t.Fatalf("cause: got %v, want %v", cause, ErrRequested)
		}
	})
}

// A leader that does not obey is condemned, and not robbed.
func TestWhoDoesNotObeyIsCondemned(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a, b := brief(t, db, "a"), joined(t, db, "b")
		l, err := Campaign(t.Context(), a, Config{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		ledB, _ := running(t, b, Config{Name: "x"})
		if err := Dismiss(t.Context(), db, "x", "me", "why", 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		next(t, ledB, "b leads")
		if l.Valid() || !errors.Is(a.Err(), coordd.ErrLost) {
			t.Fatalf("got valid %v, session %v, want it lost", l.Valid(), a.Err())
		}
	})
}

func TestAWatchSeesEachLeader(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a := joined(t, db, "a")
		seen := make(chan Info, 16)
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() {
			for info, err := range Watch(ctx, db, "x") {
				if err == nil {
					seen <- info
				}
			}
		})
		defer watching.Wait()
		defer cancel()
		see := func(what string, right func(Info) bool) {
			t.Helper()
			for {
				select {
				case info := <-seen:
					if right(info) {
						return
					}
				case <-time.After(dbtest.Patience):
					t.Fatalf("after %v: got nothing, want %s", dbtest.Patience, what)
				}
			}
		}
		see("nobody", func(i Info) bool { return i.Leader == nil })
		l, err := Campaign(t.Context(), a, Config{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		see("a", func(i Info) bool { return i.Leader != nil && i.Leader.MemberID == a.ID() })
		if err := l.Publish(t.Context(), "here"); err != nil {
			t.Fatal(err)
		}
		see("its value", func(i Info) bool { return i.Leader != nil && i.Leader.Value == "here" })
		if err := l.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		see("nobody again", func(i Info) bool { return i.Leader == nil })
	})
}

// An outage deposes nobody: the leader is suspended, and leads on in the same term.
func TestATermIsTakenUpAgainAfterAnOutage(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		a := brief(t, db, "a")
		led, _ := running(t, a, Config{Name: "x"})
		first := next(t, led, "a leads")
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		dbtest.Eventually(t, "suspended", func() bool { return a.Status() == heartbeat.Suspended })
		tap.Disturb(nil)
		again := next(t, led, "a leads again")
		if again.Term() != first.Term() || first.Valid() || !again.Valid() {
			t.Fatalf("got terms %d and %d, valid %v and %v", first.Term(), again.Term(), first.Valid(), again.Valid())
		}
	})
}
