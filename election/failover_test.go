package election

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/clock/clocktest"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/pglisten"
)

var figures = flag.Bool("figures", false, "TestL5AnotherLeadsInTime measures twenty failovers of each kind, and prints the table of docs/figures.md")

// ending is how a leadership ends, and how soon another must begin.
type ending struct {
	what     string
	ttl      time.Duration
	lanes    int // elections of which leaders end at once: the longer it takes, the more
	end      func(p *process)
	promised time.Duration
}

func (e ending) String() string { return fmt.Sprintf("%s, TTL %v", e.what, e.ttl) }

func crash(ttl time.Duration) ending {
	margin := max(200*time.Millisecond, ttl/20)
	return ending{"kill -9", ttl, 5, func(p *process) { p.signal(syscall.SIGKILL) }, ttl + ttl/100 + margin + ttl/3 + 200*time.Millisecond}
}

func resignation(ttl, promised time.Duration) ending {
	return ending{"resigns", ttl, 1, func(p *process) { p.order("resign") }, promised}
}

// busy is what a bound is given beside what is promised, as a test cannot tell a process that is
// slow from one that has to wait for the processor.
const busy = time.Second

// L5: a leader, a process of its own, is killed or resigns, and another that waits in another
// process is elected in time.
func TestL5AnotherLeadsInTime(t *testing.T) {
	for _, database := range []struct {
		name    string
		schema  func(testing.TB) string
		resigns time.Duration // is followed within this
	}{
		{"postgres", dbtest.PostgresSchema, 100 * time.Millisecond},
		{"mysql", dbtest.MySQLSchema, 300 * time.Millisecond},
		{"sqlite", dbtest.SQLiteFile, 300 * time.Millisecond},
	} {
		t.Run(database.name, func(t *testing.T) {
			endings, runs := []ending{crash(shortTTL), resignation(shortTTL, database.resigns)}, 1
			if *figures { // one after the other, so that they do not disturb each other
				endings, runs = []ending{crash(heartbeat.DefaultTTL), crash(2 * time.Second), resignation(heartbeat.DefaultTTL, database.resigns)}, 20
			} else {
				t.Parallel()
			}
			for _, e := range endings {
				took := e.measure(t, database.schema, runs)
				if len(took) == 0 {
					return // it has failed
				}
				slices.Sort(took)
				median, most := (took[(len(took)-1)/2]+took[len(took)/2])/2, took[len(took)-1]
				if most > e.promised+busy {
					t.Errorf("%s: followed after %v, want %v, and on a busy machine not much more", e, most, e.promised)
				}
				if *figures {
					fmt.Printf("| %s | %s | %v | %v | %v |\n", database.name, e, median.Round(time.Millisecond), most.Round(time.Millisecond), e.promised.Round(time.Millisecond))
				}
			}
		})
	}
}

// measure is how long it took each time until another was elected.
func (e ending) measure(t *testing.T, schema func(testing.TB) string, runs int) (took []time.Duration) {
	var mu sync.Mutex
	t.Run(e.String(), func(t *testing.T) {
		for lane := range min(e.lanes, runs) {
			t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
				t.Parallel()
				dsn := schema(t)
				dbtest.Migrated(t, dsn)
				db := dbtest.Open(t, dsn)
				listening(t, db, dsn)
				next, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: "next", TTL: e.ttl})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { next.Leave(context.Background()) })
				for range max(1, runs/e.lanes) {
					d := e.undisturbed(t, next, db, dsn)
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			})
		}
	})
	return took
}

// undisturbed is how long it took when the machine did not stand still and the database answered
// the next one's beats and looks. After a failure of its own nobody counts the time of others, so
// what is promised begins anew.
func (e ending) undisturbed(t *testing.T, next *heartbeat.Session, db *coordd.DB, dsn string) time.Duration {
	t.Helper()
	for range 10 {
		before := next.Stats()
		standstill := clocktest.Watch()
		took := e.once(t, next, db, dsn)
		after, still := next.Stats(), standstill()
		if after.Failures == before.Failures && after.LookFailures == before.LookFailures && still < e.ttl/10 {
			return took
		}
		t.Logf("%s: followed after %v, which does not count: the machine stood still for %v, and %d beats and %d looks failed",
			e, took, still, after.Failures-before.Failures, after.LookFailures-before.LookFailures)
	}
	t.Fatal("this machine or its databases are too busy to measure anything")
	return 0
}

// once has a leader end at any moment between two of its beats, and returns how long it took until
// the next one was elected.
func (e ending) once(t *testing.T, next *heartbeat.Session, db *coordd.DB, dsn string) time.Duration {
	t.Helper()
	p := start(t, dsn, e.ttl)
	elected := make(chan error, 1)
	var l *Leadership
	go func() {
		var err error
		l, err = Campaign(t.Context(), next, Config{Name: "x"})
		elected <- err
	}()
	dbtest.Eventually(t, "a candidate who waits", func() bool {
		info, err := Inspect(t.Context(), db, "x")
		return err == nil && len(info.Candidates) == 1
	})
	time.Sleep(500*time.Millisecond + rand.N(e.ttl/3)) // it has waited for so long
	began := time.Now()
	e.end(p)
	if err := <-elected; err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if err := l.Resign(t.Context()); errors.Is(err, coordd.ErrSlow) {
		t.Log(err) // it is over, and cleared away when the database is quicker
	} else if err != nil {
		t.Fatal(err)
	}
	return took
}

// listening has a DB hear what other processes ring, where its database can tell.
func listening(t *testing.T, db *coordd.DB, dsn string) {
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
