package lease

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

var everyMishap = flag.Bool("every-mishap", false, "TestL6EachStatementIsLostInTurn leaves no mishap out")

// mishap is what befalls one statement of a script, and for a while those after it.
type mishap struct {
	rare   bool
	lasts  time.Duration
	befall func(over <-chan struct{}, do func() error) error
}

// mishaps are all of them. A statement that is late is executed when the script is over; as it
// may keep rows locked until then, it is not late for ever.
var mishaps = map[string]mishap{
	"not answered": {befall: notAnswered},
	"soon":         {befall: func(<-chan struct{}, func() error) error { return dbtest.Later(after(30*time.Millisecond, nil)) }},
	"late": {rare: true, befall: func(over <-chan struct{}, _ func() error) error {
		return dbtest.Later(after(500*time.Millisecond, over))
	}},
	"not sent":     {rare: true, befall: func(<-chan struct{}, func() error) error { return dbtest.ErrBroken }},
	"nor the next": {rare: true, befall: notAnswered, lasts: 100 * time.Millisecond},
}

func notAnswered(_ <-chan struct{}, do func() error) error {
	return errors.Join(do(), dbtest.ErrBroken)
}

// after is closed after d, or with another.
func after(d time.Duration, other <-chan struct{}) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-time.After(d):
		case <-other:
		}
	}()
	return done
}

// stage is where a script is played: by a session whose statements meet with mishaps, and
// another that has none.
type stage struct {
	*testing.T
	name   string // of the lease
	hit    *heartbeat.Session
	spared *heartbeat.Session
	db     *coordd.DB // that is spared

	mu     sync.Mutex
	tokens []int64 // that were acknowledged
}

// got notes a grant that was acknowledged, and holds that it counts.
func (s *stage) got(h *Held) *Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.tokens); n > 0 && h.Token() <= s.tokens[n-1] {
		s.Errorf("token %d after %d", h.Token(), s.tokens[n-1])
	}
	s.tokens = append(s.tokens, h.Token())
	if _, err := Try(s.Context(), s.spared, Want{Name: h.Name()}); !errors.Is(err, coordd.ErrHeld) {
		s.Errorf("another, beside token %d: got %v, want %v", h.Token(), err, coordd.ErrHeld)
	}
	return h
}

// try tries until the database answers.
func (s *stage) try(w Want) *Held {
	for {
		h, err := Try(s.Context(), s.hit, w)
		switch {
		case err == nil:
			return s.got(h)
		case !errors.Is(err, coordd.ErrUnreachable) && !errors.Is(err, coordd.ErrContended) && !errors.Is(err, coordd.ErrSlow):
			s.Fatalf("try: %v", err)
		}
	}
}

// release gives back, and waits until it is given back where it has to be told again.
func (s *stage) release(h *Held) {
	if h.Release(s.Context()) == nil {
		return
	}
	dbtest.Eventually(s.T, "a release that is told again", func() bool {
		return s.count(`select (select count(*) from coordd_leases where grant_id = ?) + (select count(*) from coordd_shared where grant_id = ?)`, h.id, h.id) == 0
	})
}

// scripts are all that is written on behalf of rights.
var scripts = map[string]func(s *stage){
	"taken and given back, and again": func(s *stage) {
		for range 2 {
			s.release(s.try(Want{Name: s.name}))
		}
	},
	"with events": func(s *stage) {
		h := s.try(Want{Name: s.name, Recorded: true, Value: "here"})
		h.Publish(s.Context(), "there")
		s.release(h)
	},
	"shared": func(s *stage) {
		first := s.try(Want{Name: s.name, Limit: 2})
		second := s.try(Want{Name: s.name, Limit: 2, Recorded: true})
		s.release(first)
		s.release(second)
	},
	"from the dead": func(s *stage) {
		for i := range 2 {
			_, err := s.db.Exec(s.Context(), `insert into coordd_shared (grant_id, lease, member_id, token, since_us, guards) values (?, ?, 'nobody', 0, 0, 0)`, fmt.Sprint(s.name, i), s.name)
			if err != nil {
				s.Fatal(err)
			}
		}
		s.release(s.try(Want{Name: s.name, Limit: 1}))
		s.release(s.try(Want{Name: s.name}))
	},
	"in its turn": func(s *stage) {
		for _, w := range []Want{{Name: s.name}, {Name: s.name, Limit: 3}} {
			holder := tried(s.T, s.spared, Want{Name: s.name})
			done := make(chan *Held, 1)
			go func() { done <- s.acquire(s.Context(), w) }()
			s.awaitWaiters(1)
			released(s.T, holder)
			s.release(s.got(<-done))
		}
	},
	"given up": func(s *stage) {
		holder := tried(s.T, s.spared, Want{Name: s.name})
		ctx, cancel := context.WithCancel(s.Context())
		done := make(chan *Held, 1)
		go func() { done <- s.acquire(ctx, Want{Name: s.name}) }()
		s.awaitWaiters(1)
		cancel()
		if h := <-done; h != nil {
			s.Errorf("got token %d, want nothing", h.Token())
		}
		released(s.T, holder)
	},
	"given up when its turn comes": func(s *stage) {
		holder := tried(s.T, s.spared, Want{Name: s.name})
		ctx, cancel := context.WithCancel(s.Context())
		done := make(chan *Held, 1)
		go func() { done <- s.acquire(ctx, Want{Name: s.name, Recorded: true}) }()
		s.awaitWaiters(1)
		released(s.T, holder)
		time.Sleep(rand.N(20 * time.Millisecond))
		cancel()
		if h := <-done; h != nil {
			s.release(s.got(h))
		}
	},
	"guarded": func(s *stage) {
		for _, w := range []Want{{Name: s.name}, {Name: s.name, Limit: 3}} {
			h := s.try(w)
			what := fmt.Sprint(s.name, w.Limit)
			err := h.InTx(s.Context(), func(tx *sql.Tx) error {
				_, err := of(s.hit).DB.On(tx).Exec(s.Context(), `insert into written (what) values (?)`, what)
				return err
			})
			s.release(h) // waits for a commit that is late
			var n int
			if failed := s.db.Get(s.Context(), []any{&n}, `select count(*) from written where what = ?`, what); failed != nil {
				s.Fatal(failed)
			}
			if err == nil && n != 1 || err != nil && n != 0 && !errors.Is(err, coordd.ErrUnknownOutcome) {
				s.Errorf("a guarded transaction returned %v: it was written %d times", err, n)
			}
		}
	},
}

// acquire waits; nothing but the end of its context may end that.
func (s *stage) acquire(ctx context.Context, w Want) *Held {
	for {
		h, err := Acquire(ctx, s.hit, w)
		if err == nil {
			return h
		}
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, coordd.ErrUnreachable) { // the first look failed
			s.Errorf("acquire: %v", err)
			return nil
		}
	}
}

func (s *stage) awaitWaiters(want int) {
	dbtest.Eventually(s.T, "a waiter", func() bool { return s.count(`select count(*) from coordd_waiters where lease = ?`, s.name) >= want })
}

func (s *stage) count(stmt string, args ...any) (n int) {
	s.Helper()
	if err := s.db.Get(s.Context(), []any{&n}, stmt, args...); err != nil {
		s.Fatal(err)
	}
	return n
}

// curtain holds that nothing is left, and that all was told once.
func (s *stage) curtain() {
	s.Helper()
	for what, stmt := range map[string]string{
		"held alone": `select count(*) from coordd_leases where holder is not null and name = ?`,
		"shared":     `select count(*) from coordd_shared where member_id <> 'nobody' and lease = ?`,
		"waited for": `select count(*) from coordd_waiters where lease = ?`,
	} {
		dbtest.Eventually(s.T, "not "+what+" any more", func() bool { return s.count(stmt, s.name) == 0 })
	}
	h := tried(s.T, s.spared, Want{Name: s.name})
	released(s.T, h)
	if n := len(s.tokens); n > 0 && h.Token() <= s.tokens[n-1] {
		s.Errorf("token %d after %d", h.Token(), s.tokens[n-1])
	}
	type event struct{ action, data string }
	told, err := coordd.All(s.Context(), s.db.Queries, func(e *event) []any { return []any{&e.action, &e.data} },
		`select action, data from coordd_events where topic = 'lock' and subject = ? order by revision`, s.name)
	if err != nil {
		s.Fatal(err)
	}
	for i, e := range told {
		if slices.Index(told, e) != i && e.action != "published" {
			s.Errorf("told twice: %s %s", e.action, e.data)
		}
	}
}

// L6: whatever becomes of one statement or its reply, each grant, release, place in a queue and
// guarded transaction is there once or not at all, its caller is told which, and nothing is left
// behind in a session that lives on.
//
// Rarer mishaps come with -every-mishap.
func TestL6EachStatementIsLostInTurn(t *testing.T) {
	for title, script := range scripts {
		t.Run(title, func(t *testing.T) {
			dbtest.Each(t, func(t *testing.T, dsn string) {
				dbtest.AsAdministrator(t) // it makes a table of its own
				spared := dbtest.Migrated(t, dsn)
				if _, err := spared.Exec(t.Context(), `create table written (what varchar(200))`); err != nil {
					t.Fatal(err)
				}
				db, tap := dbtest.OpenTapped(t, dsn)
				hit := joinedWith(t, db, heartbeat.Config{Name: "hit", TTL: patientTTL, Beat: 500 * time.Millisecond})
				other := joinedWith(t, spared, heartbeat.Config{Name: "spared", TTL: patientTTL})
				for name, m := range mishaps {
					if m.rare && !*everyMishap {
						continue
					}
					for n := 1; ; n++ {
						s := &stage{T: t, name: fmt.Sprintf("lock/%s/%d", name, n), hit: hit, spared: other, db: spared}
						struck, passed := s.play(script, tap, n, m)
						if passed < n {
							t.Logf("%s: each of %d statements", name, passed)
							break
						}
						if t.Failed() {
							t.Fatalf("%s: statement %d: %s", name, n, struck)
						}
					}
				}
			})
		})
	}
}

// play plays a script in which a mishap befalls the nth statement.
func (s *stage) play(script func(*stage), tap *dbtest.Tap, n int, m mishap) (struck string, passed int) {
	var mu sync.Mutex
	var looked bool
	var until time.Time
	over := make(chan struct{})
	tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
		if isBeat(stmt) || isLook(stmt) || isSweep(stmt) {
			return do()
		}
		mu.Lock()
		again := looked && isRead(stmt) // one that waits looks often
		looked = looked || isRead(stmt)
		if !again {
			passed++
		}
		now := passed == n && !again
		if now {
			struck, until = strings.Join(strings.Fields(stmt), " "), time.Now().Add(m.lasts)
		}
		now = now || time.Now().Before(until)
		mu.Unlock()
		if now {
			return m.befall(over, do)
		}
		return do()
	})
	script(s)
	close(over)
	tap.Settle()
	tap.Disturb(nil)
	s.curtain()
	mu.Lock()
	defer mu.Unlock()
	return struck, passed
}

// L6: beats that are executed and not answered, and sent again, move a counter and nothing else.
func TestL6BeatsThatAreSentAgainChangeNoRight(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		reader := dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		s := joinedWith(t, db, heartbeat.Config{Name: "a", TTL: patientTTL, Beat: 100 * time.Millisecond})
		h := tried(t, s, alone)
		var again atomic.Int32
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if !isBeat(stmt) || again.Load() == 20 {
				return do()
			}
			again.Add(1)
			return notAnswered(nil, do)
		})
		dbtest.Eventually(t, "many beats", func() bool { return again.Load() == 20 && s.Stats().Failures == 20 })
		info, err := Inspect(t.Context(), reader, alone.Name)
		if err != nil || len(info.Holders) != 1 || info.Token != h.Token() || !h.Valid() {
			t.Fatalf("got %+v, %v, valid %v, want token %d held", info, err, h.Valid(), h.Token())
		}
		released(t, h)
	})
}
