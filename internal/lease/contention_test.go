package lease

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/pglisten"
)

var contendFor = flag.Duration("contend", 3*time.Second, "how long the contenders of TestContendersTakeTurns contend")

// servers are servers of a test's own.
var servers = map[string]func(testing.TB, dbtest.Extra) *dbtest.Server{
	"postgres": dbtest.StartPostgres, "mysql": dbtest.StartMySQL,
}

// ownServer starts one, and returns the DSN of a migrated database on it.
func ownServer(t testing.TB, name string) (*dbtest.Server, string) {
	t.Helper()
	server := servers[name](t, dbtest.Extra{})
	dsn := server.DSN()
	if name == "mysql" {
		if _, err := dbtest.Open(t, dsn).Pool().ExecContext(t.Context(), `create database coordd`); err != nil {
			t.Fatal(err)
		}
		dsn += "coordd"
	}
	dbtest.Migrated(t, dsn)
	return server, dsn
}

// listening has a DB hear what other pools ring, where its database can tell.
func listening(t testing.TB, db *coordd.DB, dsn string) {
	t.Helper()
	if product, err := db.Product(t.Context()); err != nil || product != "PostgreSQL" {
		return
	}
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l := pglisten.New(db, conn, pglisten.Config{})
	db.Listener = l
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	dbtest.Eventually(t, "a listener that hears", func() bool { return l.Err() == nil })
}

// crowd are sessions that contend for a right, over several pools as if they were processes.
type crowd struct {
	*testing.T
	want     Want
	sessions []*heartbeat.Session
	taps     []*dbtest.Tap

	holders atomic.Int32
	mu      sync.Mutex
	tokens  []int64 // that were granted, in their order
}

func assemble(t *testing.T, dsn string, pools, sessionsEach int, cfg heartbeat.Config) *crowd {
	t.Helper()
	c := &crowd{T: t, want: alone}
	for p := range pools {
		db, tap := dbtest.OpenTapped(t, dsn)
		listening(t, db, dsn)
		c.taps = append(c.taps, tap)
		for i := range sessionsEach {
			cfg.Name = fmt.Sprintf("app-%d-%d", p, i)
			c.sessions = append(c.sessions, joinedWith(t, db, cfg))
		}
	}
	return c
}

// contend has everybody take the right and give it back for as long as it wants more.
func (c *crowd) contend(more func(had int) bool) {
	var contending sync.WaitGroup
	for _, s := range c.sessions {
		contending.Go(func() {
			for had := 0; more(had) && c.turn(s); had++ {
			}
		})
	}
	contending.Wait()
}

func (c *crowd) turn(s *heartbeat.Session) bool {
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
	defer cancel()
	h, err := Acquire(ctx, s, c.want)
	if err != nil {
		c.Errorf("%s: %v", s.Name(), err)
		return false
	}
	if c.holders.Add(1) != 1 {
		c.Errorf("%s: token %d was granted beside another that was not given back", s.Name(), h.Token())
	}
	c.mu.Lock()
	c.tokens = append(c.tokens, h.Token())
	c.mu.Unlock()
	c.holders.Add(-1)
	h.Release(ctx) // what is not answered is told again
	return true
}

func (c *crowd) granted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.tokens)
}

// census counts what passes, and tells statements on behalf of rights apart.
type census struct {
	mu    sync.Mutex
	count map[string]int
}

func (c *census) watch(taps []*dbtest.Tap) {
	c.count = map[string]int{}
	for _, tap := range taps {
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			kind := kindOf(stmt)
			c.mu.Lock()
			c.count[kind]++
			c.mu.Unlock()
			return do()
		})
	}
}

func kindOf(stmt string) string {
	stmt = strings.Join(strings.Fields(stmt), " ")
	switch {
	case isBeat(stmt):
		return "beat"
	case isLook(stmt):
		return "look"
	case strings.HasPrefix(stmt, "select 'lease'"):
		return "sweep"
	case strings.HasPrefix(stmt, "select coordd_leases.token"):
		return "read"
	}
	return stmt[:min(len(stmt), 40)]
}

// turnsOf has a database note in which order waiters leave the queue.
func turnsOf(t *testing.T, db *coordd.DB, name string) func() []int64 {
	t.Helper()
	for _, stmt := range map[string][]string{
		"postgres": {
			`create table turns (n bigserial primary key, ticket bigint not null)`,
			`create function turn() returns trigger language plpgsql as $$ begin insert into turns (ticket) values (old.ticket); return null; end $$`,
			`create trigger turn after delete on coordd_waiters for each row execute function turn()`,
		},
		"mysql": {
			`create table turns (n bigint auto_increment primary key, ticket bigint not null)`,
			`create trigger turn after delete on coordd_waiters for each row insert into turns (ticket) values (old.ticket)`,
		},
	}[name] {
		if _, err := db.Pool().ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	return func() []int64 {
		all, err := coordd.All(t.Context(), db.Queries, func(n *int64) []any { return []any{n} }, `select ticket from turns order by n`)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
}

// Sixty-four want one lock for as long as the test lasts. Each hand-over goes to the next in line
// (one in a hundred may not on a machine that is so busy that the first in line seems to be
// frozen), and those who wait ask for little: a few times for each hand-over, and twice a second
// each.
func TestContendersTakeTurns(t *testing.T) {
	for name := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, dsn := ownServer(t, name)
			turns := turnsOf(t, dbtest.Open(t, dsn), name)
			c := assemble(t, dsn, 8, 8, heartbeat.Config{TTL: patientTTL})
			var counted census
			counted.watch(c.taps)
			began := time.Now()
			c.contend(func(int) bool { return time.Since(began) < *contendFor })
			took := time.Since(began)
			for _, tap := range c.taps {
				tap.Disturb(nil)
			}

			if !slices.IsSorted(c.tokens) || len(slices.Compact(slices.Clone(c.tokens))) != len(c.tokens) {
				t.Errorf("tokens out of order: %v", c.tokens)
			}
			order, out := turns(), 0
			for i := 1; i < len(order); i++ {
				if order[i] < order[i-1] {
					out++
				}
			}
			if most := max(1, len(order)/100); out > most {
				t.Errorf("got %d of %d turns out of order, want at most %d", out, len(order), most)
			}
			if most := 8*len(c.tokens) + 2*len(c.sessions)*int(took/time.Second+1); counted.count["read"] > most {
				t.Errorf("got %d looks at the lock, want at most %d", counted.count["read"], most)
			}
			all := 0
			for kind, n := range counted.count {
				all += n
				t.Logf("%8.2f a hand-over: %s", float64(n)/float64(len(c.tokens)), kind)
			}
			t.Logf("%s: %d hand-overs in %.1fs: %.1f/s, %.1f statements each, of which %.1f are looks at the lock; %d of %d turns out of order",
				name, len(c.tokens), took.Seconds(), float64(len(c.tokens))/took.Seconds(), float64(all)/float64(len(c.tokens)), float64(counted.count["read"])/float64(len(c.tokens)), out, len(order))
		})
	}
}

// Those who wait, and who is just being given the lock, when the database stops or crashes, wait
// on, and each has its turns when it is back: nobody is lost. Each grant of which the database
// knows was handed out: nobody is doubled.
func TestContendersOutliveARestart(t *testing.T) {
	ends := map[string]func(*testing.T, *dbtest.Server){
		"crashes": func(_ *testing.T, s *dbtest.Server) { s.Kill() },
		"stops": func(t *testing.T, s *dbtest.Server) {
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name := range servers {
		for how, end := range ends {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				server, dsn := ownServer(t, name)
				db := dbtest.Open(t, dsn)
				const ttl = time.Minute // so that no session ends, however long it takes
				if _, err := db.Exec(t.Context(), `update coordd_meta set value = ? where name = 'max_ttl'`, ttl.Milliseconds()); err != nil {
					t.Fatal(err)
				}
				c := assemble(t, dsn, 3, 4, heartbeat.Config{TTL: ttl, Beat: 300 * time.Millisecond})
				c.want.Recorded = true
				const turns = 3
				done := make(chan struct{})
				go func() {
					defer close(done)
					c.contend(func(had int) bool { return had < turns })
				}()
				dbtest.Eventually(t, "some turns", func() bool { return c.granted() >= len(c.sessions) })
				end(t, server)
				before, began := c.granted(), time.Now()
				dbtest.Eventually(t, "everybody misses it", func() bool {
					return !slices.ContainsFunc(c.sessions, func(s *heartbeat.Session) bool { return s.Stats().Failures == 0 })
				})
				if err := server.Start(); err != nil {
					t.Fatal(err)
				}
				away := time.Since(began)
				<-done

				if got, want := len(c.tokens), turns*len(c.sessions); got != want || before == want {
					t.Errorf("got %d turns, and %d before it was away, want %d, and some after it", got, before, want)
				}
				if got := grantsTold(t, db); !slices.Equal(got, c.tokens) {
					t.Errorf("the database knows of grants %v, and handed out were %v", got, c.tokens)
				}
				info, err := Inspect(t.Context(), db, c.want.Name)
				if err != nil || len(info.Waiters) > 0 {
					t.Errorf("got %+v, %v, want nobody left", info, err)
				}
				t.Logf("away for %v after %d of %d turns", away, before, len(c.tokens))
			})
		}
	}
}

// grantsTold are the tokens of all events about grants.
func grantsTold(t *testing.T, db *coordd.DB) (tokens []int64) {
	t.Helper()
	told, err := coordd.All(t.Context(), db.Queries, func(s *string) []any { return []any{s} },
		`select data from coordd_events where topic = 'lock' and action = 'granted' order by revision`)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range told {
		var grant struct{ Token int64 }
		if err := json.Unmarshal([]byte(data), &grant); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, grant.Token)
	}
	return tokens
}
