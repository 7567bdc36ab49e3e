package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

// What docs/design.md promises of members, on every database and in real time. Times that must be
// exact are held in virtual time (virtual_test.go).

// leastTTL is the shortest one that Join takes, if beat and timeout are left out.
var leastTTL = dbtest.Stretch(1200 * time.Millisecond)

// isBeat tells the statement that renews a session, in any database's words.
func isBeat(stmt string) bool { return strings.Contains(stmt, "seq = seq + 1") }

// silence leaves statements unanswered, and not executed.
func silence(ctx context.Context, _ string, _ func() error) error {
	<-ctx.Done()
	return ctx.Err()
}

// tappedMember joins over a pool of its own, as a process would.
func tappedMember(t *testing.T, dsn string, cfg Config) (*Session, *dbtest.Tap) {
	t.Helper()
	db, tap := dbtest.OpenTapped(t, dsn)
	return joined(t, db, cfg), tap
}

// Beats are not sent, held back, and executed without an answer; looks are late. But each member
// commits a beat at least every TTL - margin, and lives.
func TestM1WhoBeatsIsNeverDeclaredDead(t *testing.T) {
	dbtest.EachAlone(t, func(t *testing.T, dsn string) {
		reader := dbtest.Migrated(t, dsn)
		// Whether each commits often enough is up to the machine as well. Where it was not quick
		// enough a death breaks no promise, and shows nothing.
		for try, shown := 1, false; !shown && !t.Failed(); try++ {
			if try > 3 {
				t.Fatal("each time this machine kept a member from beating for longer than the promise allows, and it died")
			}
			t.Run(fmt.Sprint("try ", try), func(t *testing.T) { shown = hindered(t, dsn, reader) })
		}
	})
}

// hindered lets three members live under hindrances for four TTLs, before the eyes of two
// that would see them dead, and says whether that has shown something.
func hindered(t *testing.T, dsn string, reader *coordd.DB) bool {
	tappedMember(t, dsn, Config{Name: "prompt observer", TTL: leastTTL, Beat: leastTTL / 12})
	_, late := tappedMember(t, dsn, Config{Name: "late observer", TTL: leastTTL, Beat: leastTTL / 6})
	late.Disturb(func(ctx context.Context, stmt string, do func() error) error {
		if !strings.Contains(stmt, "b.seq, b.ttl_ms") { // a look
			return do()
		}
		err := do() // what it shows is old when it arrives, but not so old that it would watch anew
		return errors.Join(err, dbtest.Pause(ctx, rand.N(leastTTL/8)))
	})
	members := map[*Session]*hindrance{}
	for i := range 3 {
		s, tap := tappedMember(t, dsn, Config{Name: fmt.Sprint("member-", i), TTL: leastTTL, Timeout: leastTTL / 5})
		h := &hindrance{committed: time.Now()}
		tap.Disturb(h.disturb)
		members[s] = h
	}
	for began := time.Now(); time.Since(began) < 4*leastTTL; time.Sleep(20 * time.Millisecond) {
		for s, h := range members {
			state, silent := stateOf(t, reader, s.ID()), h.longest()
			switch {
			case state == Alive:
			case silent <= promised:
				t.Fatalf("%s is %s, and has committed a beat every %v: every %v is enough", s.Name(), state, silent, promised)
			default:
				t.Logf("%s is %s, and has committed no beat for %v", s.Name(), state, silent)
				return false
			}
		}
	}
	var last *Session
	var unsent, held, lost int32
	for s, h := range members {
		last = s
		unsent, held, lost = unsent+h.unsent.Load(), held+h.held.Load(), lost+h.lost.Load()
		t.Logf("%s: %v without a commit at the most, %d failures", s.Name(), h.longest(), s.Stats().Failures)
	}
	t.Logf("%d beats were not sent, %d held back, %d not answered", unsent, held, lost)
	if unsent == 0 || held == 0 || lost == 0 {
		t.Fatal("the beats were not hindered in each way")
	}
	last.kill() // the others live because they beat, and not because nobody watches
	dbtest.Eventually(t, "dead the one that beats no more", func() bool { return stateOf(t, reader, last.ID()) == Dead })
	return true
}

// promised is how often a member must commit a beat to live.
var promised = leastTTL - margin(leastTTL)

// hindrance makes a member's beats rarer, but not rarer than the promise asks for.
type hindrance struct {
	unsent, held, lost atomic.Int32

	rest time.Duration // for which a beat is kept away after the latest one

	mu        sync.Mutex
	committed time.Time     // not later than the commit of the latest beat
	most      time.Duration // between two commits, at the most
}

func (h *hindrance) disturb(ctx context.Context, stmt string, do func() error) error {
	if !isBeat(stmt) {
		return do()
	}
	// Not to be sent costs a beat its timeout of TTL/5. It must not cost the session its right, as one
	// that is suspended beats more rarely.
	switch rest := h.rest - h.since(); {
	case rest > leastTTL/6 && h.since() < leastTTL*2/5:
		h.unsent.Add(1)
		return silence(ctx, stmt, do)
	case rest > 0:
		h.held.Add(1)
		if err := dbtest.Pause(ctx, min(rest, leastTTL/6)); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	h.commit(began)
	h.rest = (promised - rand.N(promised*2/3)) * 19 / 20
	if rand.IntN(3) == 0 {
		h.lost.Add(1)
		h.rest = 0
		return dbtest.ErrReplyLost
	}
	return nil
}

// commit notes a commit between began and now.
func (h *hindrance) commit(began time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most, h.committed = max(h.most, time.Since(h.committed)), began
}

func (h *hindrance) since() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.committed)
}

// longest is the longest time without a commit so far, that which lasts included.
func (h *hindrance) longest() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(h.most, time.Since(h.committed))
}

// noise is what M2's bound is given beside what it promises, as a test cannot tell a machine that
// stands still for a moment from a member that is slow: each time that this lasts for half a TTL,
// everybody begins to watch anew, for another window. In virtual time the bound is held without it.
var noise = 5 * leastTTL

// One crashes, and one goes on but is cut off from the database; every other one sees them
// dead in time, and neither before its right has run out.
func TestM2EveryMemberSeesADeath(t *testing.T) {
	dbtest.EachAlone(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		observers := map[*Session]*coordd.DB{}
		for i := range 3 {
			db := dbtest.Open(t, dsn)
			observers[joined(t, db, Config{Name: fmt.Sprint("observer-", i), TTL: leastTTL})] = db
		}
		crashed := joined(t, dbtest.Open(t, dsn), Config{Name: "crashed", TTL: leastTTL})
		cutOff, tap := tappedMember(t, dsn, Config{Name: "cut-off", TTL: leastTTL})
		dbtest.Eventually(t, "beats of both", func() bool { return crashed.Stats().Beats > 0 && cutOff.Stats().Beats > 0 })

		crashed.kill()
		tap.Disturb(silence)
		stopped := time.Now()
		for s, db := range observers {
			for _, victim := range []*Session{crashed, cutOff} {
				dbtest.Eventually(t, victim.Name()+" dead to "+s.Name(), func() bool { return stateOf(t, db, victim.ID()) == Dead })
				if silent := victim.silent(); silent < window(leastTTL) {
					t.Fatalf("%s: declared dead %v after its latest beat was sent, want %v at least", victim.Name(), silent, window(leastTTL))
				}
			}
		}
		inTime := window(leastTTL) + leastTTL/3
		if took := time.Since(stopped); took > inTime+noise {
			t.Fatalf("both are dead to all after %v, want within %v, and %v for a machine that is busy", took, inTime, noise)
		} else {
			t.Logf("both are dead to all after %v; %v are promised", took, inTime)
		}
		tap.Disturb(nil)
		within(t, cutOff.Done(), "the one that was cut off hears of it")
		for s := range observers {
			if !s.Valid() || !errors.Is(cutOff.Err(), coordd.ErrLost) {
				t.Fatalf("%s: got valid %v, and %v of the one that was cut off, want valid and %v", s.Name(), s.Valid(), cutOff.Err(), coordd.ErrLost)
			}
		}
	})
}

// silent is the time since the latest beat that was answered was sent.
func (s *Session) silent() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now() - s.sent
}

// until is when its right ends, or ended.
func (s *Session) until() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.validUntil
}

// An outage of three TTLs that hits everyone kills nobody: all are suspended, and all are connected
// again as who they were. One that crashes in it is not dead before the others have watched it
// for a window after it.
func TestM3AnOutageKillsNobody(t *testing.T) {
	all := func(string) bool { return true }
	for name, outage := range map[string]struct {
		hits   func(stmt string) bool
		silent bool
	}{
		"nothing works":       {all, false},
		"nothing is answered": {all, true},
		"reads work":          {func(stmt string) bool { return !strings.HasPrefix(stmt, "select") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dbtest.EachAlone(t, func(t *testing.T, dsn string) {
				reader := dbtest.Migrated(t, dsn)
				db, tap := dbtest.OpenTapped(t, dsn)
				a := joined(t, db, Config{Name: "a", TTL: leastTTL})
				b := joined(t, db, Config{Name: "b", TTL: leastTTL})
				crashed := joined(t, db, Config{Name: "crashed", TTL: leastTTL})
				over := make(chan struct{})
				tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
					if !outage.hits(stmt) {
						return do()
					}
					if outage.silent {
						select {
						case <-ctx.Done():
						case <-over:
						}
					}
					return dbtest.ErrReplyLost
				})
				began, last := time.Now(), a.now()
				crashed.kill()
				for _, s := range []*Session{a, b} {
					dbtest.Eventually(t, s.Name()+" suspended", func() bool { return !s.Valid() })
					if took := s.until() - last; took > leastTTL {
						t.Fatalf("%s: suspended after %v, want at most %v", s.Name(), took, leastTTL)
					}
				}
				dbtest.Eventually(t, "three TTLs gone", func() bool { return time.Since(began) > 3*leastTTL })
				if got := stateOf(t, reader, crashed.ID()); got != Alive {
					t.Fatalf("in the outage: got %s, want %s", got, Alive)
				}
				ended := time.Now()
				tap.Disturb(nil)
				close(over)
				dbtest.Eventually(t, "both connected again", func() bool { return a.Valid() && b.Valid() })
				dbtest.Eventually(t, "the crashed one dead", func() bool { return stateOf(t, reader, crashed.ID()) == Dead })
				if health := time.Since(ended); health < window(leastTTL) {
					t.Fatalf("declared dead %v after the outage, want %v at least", health, window(leastTTL))
				}
				for _, s := range []*Session{a, b} {
					if got := stateOf(t, reader, s.ID()); got != Alive || s.Err() != nil {
						t.Fatalf("%s: got %s and %v, want %s", s.Name(), got, s.Err(), Alive)
					}
				}
				if got, want := told(t, reader), (map[string]int{"joined": 3, "died": 1}); !maps.Equal(got, want) {
					t.Fatalf("events: got %v, want %v", got, want)
				}
			})
		})
	}
}

// told is how often each kind of event has happened.
func told(t *testing.T, db *coordd.DB) map[string]int {
	t.Helper()
	actions, err := coordd.All(t.Context(), db.Queries, func(s *string) []any { return []any{s} }, `select action from coordd_events`)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, a := range actions {
		all[a]++
	}
	return all
}

func TestM4DeathIsOneCompareAndSet(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		insert := func(id string, state State) {
			if _, err := db.Exec(t.Context(), `insert into coordd_heartbeats (member_id, seq, state, ttl_ms, beat_us) values (?, 5, ?, 6000, 0)`, id, state); err != nil {
				t.Fatal(err)
			}
		}
		changes := func(want int64, what, stmt string, args ...any) {
			t.Helper()
			got, err := db.Exec(t.Context(), stmt, args...)
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Fatalf("%s: got %d rows, want %d", what, got, want)
			}
		}
		insert("x", Alive)
		insert("y", Left)
		entered, _, err := journal.EnterHistory(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		history := entered.Number()
		changes(0, "death by a beat seen earlier", stmtDeclareDead, "x", 4)
		changes(1, "beat", stmtBeat, nil, "x", history)
		changes(0, "death by a beat that is not the latest any more", stmtDeclareDead, "x", 5)
		changes(0, "a beat of another history", stmtBeat, nil, "x", history+1)
		changes(1, "death", stmtDeclareDead, "x", 6)
		changes(0, "a second death", stmtDeclareDead, "x", 6)
		changes(0, "a beat of the dead", stmtBeat, nil, "x", history)
		changes(0, "the dead leave", stmtLeave, "x")
		changes(0, "death of one that left", stmtDeclareDead, "y", 5)
		changes(0, "a beat of one that left", stmtBeat, nil, "y", history)
		changes(0, "a beat of one that never was", stmtBeat, nil, "z", history)
	})
}

func TestM4ABeatThatIsExecutedLateRevivesNobody(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		other := dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		s := joined(t, db, Config{Name: "a", TTL: shortTTL})
		held, release := make(chan struct{}), make(chan struct{})
		var first atomic.Bool
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if strings.Contains(stmt, "seq = seq + 1") && first.CompareAndSwap(false, true) {
				close(held)
				<-release
			}
			return do()
		})
		within(t, held, "a beat under way")
		declareDead(t, other, s.ID())
		close(release)
		within(t, s.Done(), "the session lost")
		if got := stateOf(t, other, s.ID()); got != Dead {
			t.Fatalf("state: got %s, want %s", got, Dead)
		}
	})
}

// Five see the same death and declare it at the same moment: it happens once, and for ever.
func TestM4ManyDeclareOneDeath(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		const many = 5
		var taps []*dbtest.Tap
		for i := range many {
			_, tap := tappedMember(t, dsn, Config{Name: fmt.Sprint("observer-", i), TTL: 15 * time.Second, Beat: leastTTL / 6})
			taps = append(taps, tap)
		}
		// On a machine that is busy they may come one by one, which shows nothing.
		var victim *Session
		deaths, met := 0, 0
		for ; deaths < 5 && met < 2; deaths++ {
			victim = joined(t, db, Config{Name: "victim", TTL: leastTTL})
			victim.kill()
			g := &gathering{many: many, all: make(chan struct{})}
			for _, tap := range taps {
				tap.Disturb(g.disturb)
			}
			dbtest.Eventually(t, "the victim dead", func() bool { return stateOf(t, db, victim.ID()) == Dead })
			dbtest.Eventually(t, "an answer for each who declares it", func() bool { return g.open.Load() == 0 })
			for _, tap := range taps {
				tap.Disturb(nil)
			}
			met = int(g.came.Load())
			t.Logf("%d declared it at once", met)
		}
		if met < 2 {
			t.Fatalf("%d deaths were declared by one alone each, want several at once", deaths)
		}

		once := map[string]int{"joined": many + deaths, "died": deaths}
		dead := rowOf(t, db, victim.ID())
		for what, try := range map[string]struct {
			stmt string
			args []any
		}{
			"a beat that comes late": {stmtBeat, []any{nil, victim.ID(), victim.history.Number()}},
			"a farewell":             {stmtLeave, []any{victim.ID()}},
			"a restart":              {stmtRestart, []any{victim.ID()}},
			"a drain":                {stmtDrain, []any{victim.ID()}},
			"the end of a drain":     {stmtUndrain, []any{victim.ID()}},
			"a condemnation":         {stmtCondemn, []any{victim.ID()}},
			"another death":          {stmtDeclareDead, []any{victim.ID(), dead.seq}},
		} {
			if changed, err := transition(t.Context(), db, time.Minute, victim.ID(), "changed", try.stmt, try.args...); changed || err != nil {
				t.Errorf("%s: got changed %v and %v, want nothing", what, changed, err)
			}
		}
		if got := rowOf(t, db, victim.ID()); got != dead || got.state != Dead {
			t.Errorf("the row of the dead: got %v, want %v", got, dead)
		}
		if got := told(t, db); !maps.Equal(got, once) {
			t.Errorf("events: got %v, want %v", got, once)
		}
	})
}

// gathering lets transactions begin together: of members that beat and watch, only declaring a death
// is one.
type gathering struct {
	many int32
	all  chan struct{} // closed when so many have come

	came, open atomic.Int32
}

func (g *gathering) disturb(_ context.Context, stmt string, do func() error) error {
	switch stmt {
	case "begin":
		g.open.Add(1)
		if g.came.Add(1) == g.many {
			close(g.all)
		}
		select {
		case <-g.all:
		case <-time.After(leastTTL / 2): // something has kept the others
		}
		err := do()
		if err != nil {
			g.open.Add(-1)
		}
		return err
	case "commit", "rollback":
		defer g.open.Add(-1)
	}
	return do()
}

// beatRow is a row of coordd_heartbeats.
type beatRow struct {
	seq, beaten int64
	state       State
}

func rowOf(t *testing.T, db *coordd.DB, id string) (r beatRow) {
	t.Helper()
	if err := db.Get(t.Context(), []any{&r.seq, &r.beaten, &r.state}, `select seq, beat_us, state from coordd_heartbeats where member_id = ?`, id); err != nil {
		t.Fatal(err)
	}
	return r
}
