package lease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/clock/clocktest"
	"github.com/coordd/coordd/internal/dbtest"
)

// What docs/design.md promises of rights, on every database and in real time. L6 is in
// replies_test.go.

// stretch is how long the tests in which many contend last.
const stretch = 3 * time.Second

// L1: tokens strictly increase, and each is granted once, though many ask at once, alone and
// to share, and replies are lost and statements executed late.
func TestL1TokensIncreaseAndEachIsGrantedOnce(t *testing.T) {
	dbtest.EachAlone(t, func(t *testing.T, dsn string) {
		reader := dbtest.Migrated(t, dsn)
		var mu sync.Mutex
		granted := map[int64]string{} // grant ids by token
		highest := int64(0)
		var lost atomic.Int32
		var working sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), dbtest.Patience)
		defer cancel()
		for i := range 4 {
			db, tap := dbtest.OpenTapped(t, dsn)
			s := joinedWith(t, db, heartbeat.Config{Name: fmt.Sprint("app-", i), TTL: patientTTL})
			tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
				chance := rand.IntN(100)
				switch {
				case isBeat(stmt) || isLook(stmt) || chance > 10:
					return do()
				case chance > 3:
					lost.Add(1)
					return notAnswered(nil, do)
				}
				lost.Add(1)
				return dbtest.Later(after(rand.N(30*time.Millisecond), nil))
			})
			for range 2 {
				working.Go(func() {
					for ctx.Err() == nil {
						w := Want{Name: alone.Name, Limit: rand.IntN(3), Recorded: true}
						mu.Lock()
						before := highest
						mu.Unlock()
						h, err := Try(ctx, s, w)
						if err != nil {
							sleep(ctx, rand.N(20*time.Millisecond))
							continue
						}
						mu.Lock()
						if h.Token() <= before {
							t.Errorf("token %d was granted after %d", h.Token(), before)
						}
						if other, twice := granted[h.Token()]; twice {
							t.Errorf("token %d: got grants %s and %s, want one", h.Token(), other, h.id)
						}
						granted[h.Token()], highest = h.id, max(highest, h.Token())
						if len(granted) >= 50 && lost.Load() >= 50 {
							cancel()
						}
						mu.Unlock()
						h.Release(ctx)
					}
				})
			}
		}
		working.Wait()
		told, err := coordd.All(t.Context(), reader.Queries, func(s *string) []any { return []any{s} },
			`select data from coordd_events where topic = 'lock' and action = 'granted' order by revision`)
		if err != nil {
			t.Fatal(err)
		}
		if len(slices.Compact(slices.Sorted(slices.Values(told)))) != len(told) {
			t.Errorf("a grant was told twice: %v", told)
		}
		if len(granted) < 50 || lost.Load() < 50 || len(told) < len(granted) {
			t.Fatalf("got %d grants, of which %d were told, and %d statements lost: nothing was shown", len(granted), len(told), lost.Load())
		}
		t.Logf("%d grants up to token %d, %d statements lost", len(granted), highest, lost.Load())
	})
}

// rivals are those who hold one right, in one process, to see whether two are valid at once.
type rivals struct {
	*testing.T
	mu   sync.Mutex
	held []*Held // all that were ever had
	took int     // over from one who had been valid and did not give it back
}

// enter notes a right, and looks for another that is valid beside it.
func (r *rivals) enter(h *Held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range r.held {
		r.compare(other, h)
		if errors.Is(other.Err(), coordd.ErrLost) {
			r.took++
		}
	}
	r.held = slices.DeleteFunc(r.held, func(other *Held) bool { return other.Context().Err() != nil })
	r.held = append(r.held, h)
}

// compare asks of the newer one last: if that is valid, it was when the older one was asked.
func (r *rivals) compare(older, newer *Held) {
	if older.Valid() && newer.Valid() {
		r.Errorf("valid at once: tokens %d and %d", older.Token(), newer.Token())
	}
}

// check looks again at who has entered since.
func (r *rivals) check(h *Held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.held {
		if other == h {
			for _, newer := range r.held[i+1:] {
				r.compare(h, newer)
			}
		}
	}
}

// cutTTL is for members that are cut off from the database for about as long.
var cutTTL = dbtest.Stretch(1200 * time.Millisecond)

// L2: no two are valid at once, though each is cut off from the database now and then, for
// about as long as it takes to be declared dead.
func TestL2NoTwoAreValidAtOnce(t *testing.T) {
	dbtest.EachAlone(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		r := &rivals{T: t}
		ctx, cancel := context.WithCancel(t.Context())
		var working sync.WaitGroup
		for i := range 6 {
			db, tap := dbtest.OpenTapped(t, dsn)
			cfg := heartbeat.Config{Name: fmt.Sprint("app-", i), TTL: cutTTL}
			working.Go(func() {
				for ctx.Err() == nil {
					err := heartbeat.Run(ctx, db, cfg, func(ctx context.Context, s *heartbeat.Session) error {
						r.contend(ctx, s, tap)
						return nil
					})
					if err != nil && !errors.Is(err, coordd.ErrSlow) { // it could not join
						t.Error(err)
					}
				}
			})
		}
		for began := time.Now(); time.Since(began) < dbtest.Patience; time.Sleep(10 * time.Millisecond) {
			r.mu.Lock()
			done := r.took >= 4 && time.Since(began) > stretch
			r.mu.Unlock()
			if done {
				break
			}
		}
		cancel()
		working.Wait()
		if r.took < 4 {
			t.Fatalf("%d were taken over from: nothing was shown", r.took)
		}
		t.Logf("%d were taken over from", r.took)
	})
}

func (r *rivals) contend(ctx context.Context, s *heartbeat.Session, tap *dbtest.Tap) {
	for ctx.Err() == nil {
		h, err := Acquire(ctx, s, alone)
		if err != nil {
			sleep(ctx, 10*time.Millisecond)
			continue
		}
		r.enter(h)
		if rand.IntN(3) == 0 {
			thaw := after(cutTTL*3/4+rand.N(cutTTL), ctx.Done())
			tap.Disturb(func(ctx context.Context, _ string, do func() error) error {
				select {
				case <-thaw:
					return do() // what was on its way arrives
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			<-thaw
		} else {
			sleep(ctx, rand.N(50*time.Millisecond))
		}
		r.check(h)
		tap.Disturb(nil)
		h.Release(ctx)
	}
}

// withLedger is a migrated database with a table of a user's.
func withLedger(t *testing.T, dsn string) *coordd.DB {
	t.Helper()
	dbtest.AsAdministrator(t) // it makes a table of its own
	db := dbtest.Migrated(t, dsn)
	if _, err := db.Exec(t.Context(), `create table ledger (token bigint not null, newest bigint not null)`); err != nil {
		t.Fatal(err)
	}
	return db
}

// kinds are the ways to hold a right that exclude the same way to hold it.
var kinds = map[string]Want{"alone": {Name: "lock/x"}, "the only permit": {Name: "lock/x", Limit: 1}}

// levels are what the transactions of users run at; 0 is that of the database.
var levels = []sql.IsolationLevel{0, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable}

// began begins a user's transaction and looks at something, as what some levels show is as it was
// then.
func began(t *testing.T, db *coordd.DB, level sql.IsolationLevel) *sql.Tx {
	t.Helper()
	if product, err := db.Product(t.Context()); err != nil || product == "SQLite" {
		level = 0
	}
	tx, err := db.Pool().BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	var n int
	if err := db.On(tx).Get(t.Context(), []any{&n}, `select count(*) from ledger`); err != nil {
		t.Fatal(err)
	}
	return tx
}

// declaredDead is dead to everybody but itself, until its next beat.
func declaredDead(t *testing.T, db *coordd.DB, s *heartbeat.Session) {
	t.Helper()
	if n, err := db.Exec(t.Context(), `update coordd_heartbeats set state = 'dead' where member_id = ?`, s.ID()); n != 1 || err != nil {
		t.Fatalf("%s: got %d rows, %v", s.Name(), n, err)
	}
}

// L3: a takeover waits for a transaction that has passed its guard, and comes before one that
// has not, which then fails.
func TestL3ATakeoverAndAGuardExcludeEachOther(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := withLedger(t, dsn)
		users := dbtest.OpenPatient(t, dsn)
		for name, kind := range kinds {
			for _, level := range levels {
				t.Run(fmt.Sprint(name, ", ", level), func(t *testing.T) {
					a := joinedWith(t, users, heartbeat.Config{Name: "a", TTL: patientTTL})
					b := joinedWith(t, db, heartbeat.Config{Name: "b", TTL: patientTTL})
					old := tried(t, a, kind)
					declaredDead(t, db, a)
					tx := began(t, users, level)
					if err := old.Guard(t.Context(), tx); err != nil {
						t.Fatalf("the newest: got %v, want no error", err)
					}
					next := make(chan *Held, 1)
					go func() { next <- acquired(t, b, kind) }()
					select {
					case h := <-next:
						t.Fatalf("token %d was granted before the commit of one that had passed its guard", h.Token())
					case <-time.After(300 * time.Millisecond): // it must not be
					}
					if err := tx.Commit(); err != nil {
						t.Fatal(err)
					}
					h := <-next
					if h.Token() <= old.Token() {
						t.Fatalf("got token %d after %d", h.Token(), old.Token())
					}
					stale := began(t, users, level)
					if err := old.check(t.Context(), stale); !errors.Is(err, coordd.ErrFenced) {
						t.Fatalf("begun after it: got %v, want %v", err, coordd.ErrFenced)
					}
					stale.Rollback()
					released(t, h)
					released(t, old)
				})
				if t.Failed() {
					return
				}
			}
		}
	})
}

// acquired is a right whose turn has come, on the test's behalf but not in its goroutine.
func acquired(t *testing.T, s *heartbeat.Session, w Want) *Held {
	for {
		h, err := Acquire(t.Context(), s, w)
		if err == nil {
			return h
		}
		if t.Context().Err() != nil || !errors.Is(err, coordd.ErrContended) && !errors.Is(err, coordd.ErrSlow) {
			t.Errorf("acquire: %v", err)
			return &Held{}
		}
	}
}

// L3: a transaction that began before a takeover, and has looked, does not pass its guard after
// it, at whatever level. SQLite has one writer: there nobody can take over meanwhile.
func TestL3ATransactionFromBeforeATakeoverFails(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := withLedger(t, dsn)
		users := dbtest.OpenPatient(t, dsn)
		if product, err := db.Product(t.Context()); err != nil || product == "SQLite" {
			return
		}
		for name, kind := range kinds {
			for _, level := range levels {
				t.Run(fmt.Sprint(name, ", ", level), func(t *testing.T) {
					a := joinedWith(t, db, heartbeat.Config{Name: "a", TTL: patientTTL})
					b := joinedWith(t, db, heartbeat.Config{Name: "b", TTL: patientTTL})
					old := tried(t, a, kind)
					tx := began(t, users, level)
					declaredDead(t, db, a)
					h := tried(t, b, kind)
					err := old.check(t.Context(), tx)
					if !errors.Is(err, coordd.ErrFenced) && !errors.Is(err, coordd.ErrContended) { // could not serialize
						t.Fatalf("got %v, want %v", err, coordd.ErrFenced)
					}
					tx.Rollback()
					released(t, h)
					released(t, old)
				})
			}
		}
	})
}

// L3: writers that are declared dead while they write, and do not know, write nothing once
// another has been granted the right. Each writes down, in its own guarded transaction, under
// which token it writes, and which is the newest.
func TestL3NothingStaleIsEverCommitted(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			dbtest.Each(t, func(t *testing.T, dsn string) {
				db := withLedger(t, dsn)
				ctx, cancel := context.WithTimeout(t.Context(), dbtest.Patience)
				defer cancel()
				l := &ledger{T: t, enough: cancel}
				var working sync.WaitGroup
				for i := range 4 {
					own := dbtest.Open(t, dsn)
					working.Go(func() {
						for ctx.Err() == nil {
							s, err := heartbeat.Join(ctx, own, heartbeat.Config{Name: fmt.Sprint("app-", i), TTL: patientTTL})
							if err != nil {
								continue
							}
							l.write(ctx, s, kind)
							s.Leave(ctx)
						}
					})
				}
				working.Go(func() { // whoever holds it is declared dead
					for sleep(ctx, 30*time.Millisecond+rand.N(100*time.Millisecond)) {
						info, err := Inspect(ctx, db, kind.Name)
						if err == nil && len(info.Holders) > 0 {
							db.Exec(ctx, `update coordd_heartbeats set state = 'dead' where member_id = ?`, info.Holders[0].MemberID)
						}
					}
				})
				working.Wait()
				type row struct{ token, newest int64 }
				all, err := coordd.All(t.Context(), db.Queries, func(r *row) []any { return []any{&r.token, &r.newest} }, `select token, newest from ledger`)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range all {
					if r.token != r.newest {
						t.Errorf("committed under token %d when %d was the newest", r.token, r.newest)
					}
				}
				if len(all) < 10 || l.fenced.Load() < 5 {
					t.Fatalf("%d transactions were committed and %d fenced off: nothing was shown", len(all), l.fenced.Load())
				}
				t.Logf("%d committed, %d fenced off", len(all), l.fenced.Load())
			})
		})
	}
}

type ledger struct {
	*testing.T
	committed, fenced atomic.Int32
	enough            func()
}

// write takes the right and writes under it until that fails.
func (l *ledger) write(ctx context.Context, s *heartbeat.Session, w Want) {
	h, err := Acquire(ctx, s, w)
	if err != nil {
		return
	}
	for err == nil && sleep(ctx, rand.N(5*time.Millisecond)) {
		if err = l.transact(ctx, h); err == nil {
			l.committed.Add(1)
		}
	}
	if errors.Is(err, coordd.ErrFenced) {
		l.fenced.Add(1)
	}
	if l.committed.Load() >= 10 && l.fenced.Load() >= 5 {
		l.enough()
	}
	h.Release(ctx)
}

func (l *ledger) transact(ctx context.Context, h *Held) error {
	tx, err := h.k.DB.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	q := h.k.DB.On(tx)
	if _, err := q.Exec(ctx, `insert into ledger (token, newest) values (?, -1)`, h.Token()); err != nil {
		return err
	}
	sleep(ctx, rand.N(5*time.Millisecond))
	if err := h.check(ctx, tx); err != nil {
		return err
	}
	sleep(ctx, rand.N(5*time.Millisecond))
	if _, err := q.Exec(ctx, `update ledger set newest = (select token from coordd_leases where name = ?) where newest = -1 and token = ?`, h.Name(), h.Token()); err != nil {
		return err
	}
	return tx.Commit()
}

// L4: what is held ends before its deadline, though no statement is answered any more.
func TestL4ARightEndsBeforeItsDeadlineWithoutADatabase(t *testing.T) {
	dbtest.EachAlone(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		const ttl = 4 * time.Second
		s := joinedWith(t, db, heartbeat.Config{Name: "a", TTL: ttl})
		all := []*Held{tried(t, s, alone), tried(t, s, Want{Name: "lock/y", Limit: 2}), tried(t, s, Want{Name: "election/x", Recorded: true})}
		over := make(chan struct{})
		tap.Disturb(func(ctx context.Context, _ string, _ func() error) error {
			select {
			case <-ctx.Done():
			case <-over:
			}
			return dbtest.ErrReplyLost
		})
		silent, standstill := time.Now(), clocktest.Watch() // no beat is sent after this that is answered
		for _, h := range all {
			for valid := true; valid; time.Sleep(time.Millisecond) {
				at := time.Since(silent)
				if valid = h.Valid(); valid && at > ttl {
					t.Fatalf("%s: it is valid %v after the latest beat can have been sent, want it not after %v", h.Name(), at, ttl)
				}
			}
		}
		for _, h := range all {
			<-h.Context().Done()
		}
		ended, still := time.Since(silent), standstill()
		if ended > ttl+still {
			t.Errorf("their ends were told after %v, want it before %v; the machine stood still for %v", ended, ttl, still)
		}
		for _, h := range all {
			if h.Valid() {
				t.Errorf("%s: it is valid again", h.Name())
			}
			if cause := context.Cause(h.Context()); !errors.Is(cause, heartbeat.ErrSuspended) {
				t.Errorf("%s: cause: got %v, want %v", h.Name(), cause, heartbeat.ErrSuspended)
			}
			if err := h.Guard(t.Context(), db.Pool()); !errors.Is(err, coordd.ErrLost) {
				t.Errorf("%s: guard: got %v, want %v without asking", h.Name(), err, coordd.ErrLost)
			}
		}
		t.Logf("ended after %v of %v", ended, ttl)
		tap.Disturb(nil)
		close(over)
	})
}

// busy is what a bound is given beside what is promised, as a test cannot tell a machine that
// stands still from a member that is slow.
const busy = 3 * time.Second

// L5: after a release the next in line has it at once, in another process too.
func TestL5AReleaseIsHandedOver(t *testing.T) {
	dbtest.EachAlone(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		c := assemble(t, dsn, 2, 1, heartbeat.Config{TTL: patientTTL})
		promised := 300 * time.Millisecond
		if of(c.sessions[0]).DB.Hears() {
			promised = 100 * time.Millisecond
		}
		var took []time.Duration
		holder := tried(t, c.sessions[0], alone)
		for i := range 12 {
			next := make(chan *Held, 1)
			go func() { next <- acquired(t, c.sessions[(i+1)%2], alone) }()
			time.Sleep(50*time.Millisecond + rand.N(300*time.Millisecond)) // it has waited for so long
			began := time.Now()
			released(t, holder)
			holder = <-next
			took = append(took, time.Since(began))
		}
		released(t, holder)
		slices.Sort(took)
		median, most := took[len(took)/2], took[len(took)-1]
		t.Logf("median %v, maximum %v; %v are promised", median, most, promised)
		if median > promised+busy/10 || most > promised+busy {
			t.Errorf("median %v, maximum %v: want %v, and on a busy machine not much more", median, most, promised)
		}
	})
}

// L5: a holder that is gone without a word is followed within its TTL, 1 %, the margin, and a
// beat.
func TestL5ACrashIsFollowedInTime(t *testing.T) {
	dbtest.EachAlone(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		crashed, next := brief(t, db, "crashed"), joined(t, dbtest.Open(t, dsn), "next")
		tried(t, crashed, alone)
		got := make(chan *Held, 1)
		go func() { got <- acquired(t, next, alone) }()
		dbtest.Eventually(t, "a waiter", func() bool {
			info, err := Inspect(t.Context(), of(next).DB, alone.Name)
			return err == nil && len(info.Waiters) == 1
		})
		began, standstill := time.Now(), clocktest.Watch()
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		released(t, <-got)
		promised := shortTTL + shortTTL/100 + 200*time.Millisecond + shortTTL/3
		took, still, most := time.Since(began), standstill(), promised+dbtest.Stretch(busy)
		if still > shortTTL/4 {
			most += promised // who stands still counts anew
		}
		if took > most {
			t.Errorf("followed after %v, want %v, and on a busy machine not much more; it stood still for %v", took, promised, still)
		} else {
			t.Logf("followed after %v; %v are promised", took, promised)
		}
		tap.Disturb(nil)
	})
}
