package heartbeat

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/dialect"
	"github.com/coordd/coordd/internal/journal"
)

// sqliteLook is a look as SQLite reads it.
var sqliteLook = dialect.SQLite.Text(stmtLook)

// dies waits until a member stands as dead, and fails the test if that takes longer than
// bound.
func dies(t *testing.T, db *coordd.DB, id string, bound time.Duration) {
	t.Helper()
	began := time.Now()
	for stateOf(t, db, id) == Alive {
		if time.Since(began) > bound {
			t.Fatalf("not seen dead after %v, want within %v", time.Since(began), bound)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// seconds is a random time up to s seconds, in steps that do not repeat with the beats.
func seconds(s float64) time.Duration {
	return time.Duration(rand.Float64() * s * float64(time.Second))
}

// These tests run real SQL on SQLite in virtual time, so that hours cost nothing and times
// are exact.

// A dead member is seen dead within TTL * 1.01 + margin + one beat.
func TestM2DeathIsSeenInTime(t *testing.T) {
	for _, ttl := range []time.Duration{1200 * time.Millisecond, DefaultTTL, 15 * time.Second} {
		t.Run(ttl.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, _, _ := dbtest.VirtualTime(t)
				survivor := joined(t, db, Config{Name: "survivor"}) // its own TTL does not matter
				for range dbtest.Runs(20) {
					victim := joined(t, db, Config{Name: "victim", TTL: ttl})
					time.Sleep(time.Minute + rand.N(ttl))
					victim.kill()
					dies(t, db, victim.ID(), window(ttl)+min(ttl/3, survivor.cfg.Beat))
				}
				if survivor.Err() != nil || !survivor.Valid() {
					t.Fatalf("the survivor: got valid %v, error %v", survivor.Valid(), survivor.Err())
				}
			})
		})
	}
}

// Who beats is never declared dead, for an hour.
func TestM1WhoBeatsLivesForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		var all []*Session
		for _, name := range []string{"a", "b", "c"} {
			all = append(all, joined(t, db, Config{Name: name}))
		}
		for range dbtest.Runs(60) {
			time.Sleep(time.Minute)
			for _, s := range all {
				if !s.Valid() || stateOf(t, db, s.ID()) != Alive {
					t.Fatalf("%s: got valid %v, state %s", s.Name(), s.Valid(), stateOf(t, db, s.ID()))
				}
			}
		}
	})
}

// At the default TTL a member costs one statement a second.
func TestAMemberCostsOneStatementASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		db.Pool().SetMaxOpenConns(1) // who finds SQLite busy asks again, which is none of the cost
		members, seconds := 5, dbtest.Runs(600)
		for range members {
			joined(t, db, Config{Name: "a"})
		}
		before := tap.Statements()
		time.Sleep(time.Duration(seconds) * time.Second)
		if got, most := tap.Statements()-before, members*seconds; got > most || got < most/2 {
			t.Fatalf("%d members in %d s: got %d statements, want at most %d", members, seconds, got, most)
		}
	})
}

// Also a member that dies as soon as it has joined, with a TTL far shorter than that of
// those who watch: they learn of it with their next beat.
func TestAShortLivedMemberIsSeenDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		survivor := joined(t, db, Config{Name: "survivor", TTL: 15 * time.Second})
		ttl := 1200 * time.Millisecond
		for range dbtest.Runs(20) {
			time.Sleep(seconds(30))
			victim := joined(t, db, Config{Name: "victim", TTL: ttl})
			victim.kill()
			dies(t, db, victim.ID(), survivor.cfg.Beat+window(ttl)+ttl/3)
		}
	})
}

// A database that always takes its time must not keep anybody from being seen dead.
func TestDeathIsSeenOverSlowStatements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, slow, tap := dbtest.VirtualTime(t)
		const latency = 1400 * time.Millisecond // of a timeout of 1.5 s
		survivor := joined(t, slow, Config{Name: "survivor"})
		tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
			if stmt == sqliteLook || strings.Contains(stmt, "seq = seq + 1") { // and not while a transaction holds SQLite's lock
				if err := dbtest.Pause(ctx, latency); err != nil {
					return err
				}
			}
			return do()
		})
		for range dbtest.Runs(10) {
			victim := joined(t, quick, Config{Name: "victim"})
			time.Sleep(20*time.Second + seconds(6))
			victim.kill()
			dies(t, quick, victim.ID(), window(DefaultTTL)+survivor.cfg.Beat+6*latency)
		}
		if !survivor.Valid() || survivor.Stats().Failures > 0 {
			t.Fatalf("the survivor: got valid %v, %+v", survivor.Valid(), survivor.Stats())
		}
	})
}

// Somebody keeps the row of a dead member locked. Those who die meanwhile are seen dead in time.
func TestADeathThatCannotBeDeclaredDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, db, tap := dbtest.VirtualTime(t)
		survivor := joined(t, db, Config{Name: "survivor"})
		for range dbtest.Runs(20) {
			locked := joined(t, quick, Config{Name: "locked"})
			other := joined(t, quick, Config{Name: "other"})
			time.Sleep(10*time.Second + seconds(6))
			var tries atomic.Int32
			tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
				if strings.Contains(stmt, "set state = 'dead'") && tries.Add(1) == 1 { // it is the first to be overdue
					return context.DeadlineExceeded // at once, as SQLite's one writer must not keep anybody from beating
				}
				return do()
			})
			locked.kill()
			time.Sleep(3 * time.Second)
			other.kill()
			dies(t, quick, other.ID(), window(DefaultTTL)+survivor.cfg.Beat)
			if stateOf(t, quick, locked.ID()) != Alive {
				t.Fatal("it was declared dead, though its row was locked")
			}
			dies(t, quick, locked.ID(), 2*window(DefaultTTL))
			tap.Disturb(nil)
		}
	})
}

// Somebody has deleted what a member said of itself. Its death is told all the same, and those of
// others are.
func TestAMemberWhoseRowIsDeletedIsSeenDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		survivor := joined(t, db, Config{Name: "survivor"})
		deleted, other := joined(t, db, Config{Name: "deleted"}), joined(t, db, Config{Name: "other"})
		time.Sleep(time.Minute)
		deleted.kill()
		other.kill()
		if _, err := db.Exec(t.Context(), `delete from coordd_members where id = ?`, deleted.ID()); err != nil {
			t.Fatal(err)
		}
		dies(t, db, other.ID(), window(DefaultTTL)+survivor.cfg.Beat)
		time.Sleep(survivor.cfg.Beat)
		page, err := journal.Read(t.Context(), db.Queries, 0, 100, Topic)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, e := range page.Events {
			if e.Action == "died" {
				told = append(told, e.MemberID+" "+e.Subject)
			}
		}
		slices.Sort(told)
		if want := []string{deleted.ID() + " " + deleted.ID(), other.ID() + " other"}; !slices.Equal(told, want) {
			t.Fatalf("deaths: got %q, want %q", told, want)
		}
	})
}

// Writes that stall for longer than half of a member's TTL are an outage to it, though its
// reaper's own, longer deadlines have not passed: nobody is reaped until a window after.
func TestM3AStallIsAnOutageToShorterTTLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, db, tap := dbtest.VirtualTime(t)
		reaper := joined(t, db, Config{Name: "reaper"})
		ttl := 1200 * time.Millisecond
		for range dbtest.Runs(100) {
			victim := joined(t, quick, Config{Name: "victim", TTL: ttl})
			time.Sleep(5*time.Second + seconds(3))
			victim.kill() // it cannot beat from here on, as if its statements stalled
			over := time.Now().Add(ttl/2 + 50*time.Millisecond + seconds(0.5))
			tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
				if !strings.HasPrefix(stmt, "select") {
					if err := dbtest.Pause(ctx, time.Until(over)); err != nil {
						return err
					}
				}
				return do()
			})
			dies(t, quick, victim.ID(), time.Minute)
			if health := time.Since(over); health < window(ttl) {
				t.Fatalf("declared dead %v after the outage, want %v at least", health, window(ttl))
			}
			tap.Disturb(nil)
		}
		if reaper.Stats().Failures > 0 {
			t.Fatalf("the reaper failed %d times: the stalls were meant to be shorter than its timeout", reaper.Stats().Failures)
		}
	})
}

// A database on which no commit is answered is asked a few times and not stormed.
func TestAJoinThatIsNeverAnsweredGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		var commits atomic.Int32
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if err := do(); stmt != "commit" || err != nil {
				return err
			}
			commits.Add(1)
			return dbtest.ErrReplyLost
		})
		_, err := Join(t.Context(), db, Config{Name: "a"})
		if !errors.Is(err, coordd.ErrUnknownOutcome) {
			t.Fatalf("got %v, want %v", err, coordd.ErrUnknownOutcome)
		}
		if n := commits.Load(); n < 2 || n > 61 {
			t.Fatalf("commits in one TTL: got %d, want 2 to 61", n)
		}
	})
}

// A load that JSON cannot say is told as none, and the next one again. The log hears once of each
// such time.
func TestALoadThatCannotBeToldIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _, _ := dbtest.VirtualTime(t)
		var cpu atomic.Value
		cpu.Store(0.25)
		asking := &askingHandler{Handler: slog.DiscardHandler}
		joined(t, db, Config{Name: "a", Load: func() Load { return Load{CPU: cpu.Load().(float64)} }, Logger: slog.New(asking)})
		before := asking.records.Load()
		for i := range 2 {
			for _, c := range []float64{math.NaN(), 0.5} {
				cpu.Store(c)
				time.Sleep(time.Minute)
				members, err := Members(t.Context(), db)
				if err != nil {
					t.Fatal(err)
				}
				if got := members[0].Load; math.IsNaN(c) != (got == nil) || got != nil && got.CPU != c {
					t.Fatalf("CPU %v: got %+v", c, got)
				}
			}
			if told := asking.records.Load() - before; told != int32(i+1) {
				t.Fatalf("told: got %d times, want %d", told, i+1)
			}
		}
	})
}

// A logger may ask the session anything, and be as slow as it likes.
func TestLoggingHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		asking := &askingHandler{Handler: slog.DiscardHandler}
		s := joined(t, db, Config{Name: "a", Logger: slog.New(asking)})
		asking.session.Store(s)
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		time.Sleep(time.Minute)
		tap.Disturb(nil)
		time.Sleep(time.Minute)
		if !s.Valid() || asking.records.Load() < 4 {
			t.Fatalf("got valid %v after %d records, want valid after a failure, a suspension and a connection", s.Valid(), asking.records.Load())
		}
	})
}

// askingHandler asks the session at each record.
type askingHandler struct {
	slog.Handler
	session atomic.Pointer[Session]
	records atomic.Int32
}

func (h *askingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *askingHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *askingHandler) Handle(context.Context, slog.Record) error {
	h.records.Add(1)
	if s := h.session.Load(); s != nil {
		s.Valid()
		s.Stats()
	}
	return nil
}
