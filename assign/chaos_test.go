package assign

import (
	flags "flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

var long = flags.Bool("long", false, "TestProcessesThatFallOverNeverShareAJob goes on for two minutes")

// Three processes look after ten thousand jobs. One after another they are killed, frozen and thawed,
// drained, leave and come anew, and write down what they do. Then the database is asked whether two of
// them ever had one job, or nobody had one for longer than it takes to notice a crash and settle.
func TestProcessesThatFallOverNeverShareAJob(t *testing.T) {
	t.Parallel()
	lasts := 15 * time.Second
	if *long {
		lasts = 2 * time.Minute
	}
	dbtest.AsAdministrator(t) // for tables of its own
	for database, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		t.Run(database, func(t *testing.T) {
			if !*long { // its bound is for a machine that does nothing else
				t.Parallel()
			}
			c := begin(t, schema(t))
			c.mishaps(lasts)
			c.end()
			c.check()
		})
	}
}

const chaosJobs = 10_000

// chaos is one run.
type chaos struct {
	*testing.T
	db       *coordd.DB
	dsn      string
	began    int64 // when all jobs were looked after for the first time
	ended    int64 // before anybody was told to end
	live     []*process
	started  int
	happened map[string]int
}

func begin(t *testing.T, dsn string) *chaos {
	db := dbtest.Migrated(t, dsn)
	for _, stmt := range ledgerTables {
		if _, err := db.Exec(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	g := Group{Name: "g", Slots: 120, Options: Options{Gather: 200 * time.Millisecond}}
	grouped(t, db, g, chaosJobs)
	for slot := range g.Slots {
		if _, err := db.Exec(t.Context(), `insert into counters (slot, n) values (?, 0)`, slot); err != nil {
			t.Fatal(err)
		}
	}
	c := &chaos{T: t, db: db, dsn: bounded(t, db, dsn), happened: map[string]int{}}
	for range 3 {
		c.join()
	}
	c.settles()
	c.began = instant()
	return c
}

// bounded has MariaDB end transactions of those who are frozen in them, as docs/guard.md advises.
func bounded(t *testing.T, db *coordd.DB, dsn string) string {
	product, err := db.Product(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if product != "MariaDB" {
		return dsn
	}
	separator := "?"
	if strings.Contains(dsn, "?") {
		separator = "&"
	}
	return dsn + separator + "idle_write_transaction_timeout=1"
}

func (c *chaos) join() {
	c.Helper()
	c.started++
	c.live = append(c.live, start(c.T, memberSpec{
		DSN: c.dsn, Name: fmt.Sprint("process-", c.started), TTL: shortTTL, Work: "ledger", Verbose: testing.Verbose(),
	}))
}

// settles waits until each job is worked on, by those who are not frozen.
func (c *chaos) settles(frozen ...*process) {
	c.Helper()
	dbtest.Eventually(c.T, "work on all jobs", func() bool {
		busy := 0
		for _, p := range c.live {
			if _, n := p.lastSign(); !slices.Contains(frozen, p) {
				busy += n
			}
		}
		return busy == chaosJobs
	})
}

// mishaps are of each kind in turn, in any order. One that takes a process away waits until what was
// that one's is settled, so that the time without an owner can be told; others are met in their midst.
func (c *chaos) mishaps(lasts time.Duration) {
	kinds := map[string]func(*process){"killed": c.kill, "killed while frozen": c.killFrozen, "frozen until dead": c.freeze, "frozen for a moment": c.nap, "drained": c.drain, "left": c.leave}
	names := slices.Sorted(maps.Keys(kinds))
	for end := time.Now().Add(lasts); ; {
		for _, i := range rand.Perm(len(names)) {
			if time.Now().After(end) && len(c.happened) == len(names) {
				return
			}
			kinds[names[i]](c.live[rand.IntN(len(c.live))])
			c.happened[names[i]]++
			if rand.IntN(2) == 0 {
				c.settles()
			}
		}
	}
}

func (c *chaos) without(p *process) {
	c.live = slices.DeleteFunc(c.live, func(other *process) bool { return other == p })
}

func (c *chaos) kill(p *process) {
	c.Helper()
	p.kill()
	c.bury(p)
}

// bury notes when a process gave its last sign, and starts another when its jobs are at others.
func (c *chaos) bury(p *process) {
	c.Helper()
	c.without(p)
	valid, _ := p.lastSign()
	if _, err := c.db.Exec(c.Context(), `insert into killed (process, at) values (?, ?)`, p.Name, valid); err != nil {
		c.Fatal(err)
	}
	c.settles()
	c.join()
}

// freeze keeps a process frozen for some time after it was declared dead and others have its jobs.
func (c *chaos) freeze(p *process) {
	c.Helper()
	p.freeze()
	dbtest.Eventually(c.T, "a frozen process that is dead", func() bool {
		return account{c.T, c.db}.count(`select count(*) from coordd_heartbeats where member_id = ? and state = 'dead'`, p.latest()) == 1
	})
	c.settles(p)
	time.Sleep(rand.N(shortTTL / 2))
	before := p.latest()
	p.signal(syscall.SIGCONT)
	p.awaitJoined(before)
}

func (c *chaos) killFrozen(p *process) {
	c.Helper()
	p.freeze()
	time.Sleep(rand.N(shortTTL))
	p.kill()
	c.bury(p)
}

// nap freezes a process for a moment that its session may or may not survive as connected, and
// survives as a session.
func (c *chaos) nap(p *process) {
	c.Helper()
	p.freeze()
	time.Sleep(rand.N(shortTTL / 2))
	p.signal(syscall.SIGCONT)
}

func (c *chaos) drain(p *process) {
	c.Helper()
	drained := ""
	dbtest.Eventually(c.T, "a drained process without jobs", func() bool {
		// It may have died by what happened before, and joined again.
		if id := p.latest(); id != drained && heartbeat.Drain(c.Context(), c.db, id) == nil {
			drained = id
		}
		_, busy := p.lastSign()
		return drained != "" && busy == 0
	})
	dbtest.Eventually(c.T, "the end of a drain", func() bool {
		return p.latest() != drained || heartbeat.Undrain(c.Context(), c.db, drained) == nil
	})
}

func (c *chaos) leave(p *process) {
	c.Helper()
	c.join()
	c.without(p)
	p.leave()
}

// end has everybody leave, when all is well.
func (c *chaos) end() {
	c.Helper()
	c.settles()
	c.ended = instant()
	for _, p := range c.live {
		p.leave()
	}
}

// settling is for how long nobody may look after a job: what a crash takes to be noticed, and a second.
func settling(ttl time.Duration) time.Duration {
	return ttl + ttl/100 + max(200*time.Millisecond, ttl/20) + ttl/3 + time.Second
}

func (c *chaos) check() {
	c.Helper()
	l := account{c.T, dbtest.OpenPatient(c.T, c.dsn)} // it asks about a lot
	for _, wrong := range l.wrong() {
		c.Error(wrong)
	}
	gap, untroubled := l.gap()
	limit := settling(shortTTL)
	if !*long { // other tests run beside it
		limit += 5 * busy
	}
	if untroubled > limit {
		c.Errorf("got a job that nobody looked after for %v after the last trouble, want %v at most", untroubled, limit)
	}
	if n := l.always(c.began, c.ended); n != chaosJobs {
		c.Errorf("got %d jobs that were looked after from the beginning to the end, want %d", n, chaosJobs)
	}
	accepted, fenced, lost := l.count(`select count(*) from writes`), l.count(`select count(*) from refusals where fenced = 1`), l.count(`select count(*) from refusals where fenced = 0`)
	if accepted < 100 || fenced+lost < 10 || fenced < 1 {
		c.Errorf("got %d writes, %d that the database refused and %d that were not sent, as the session was not valid: want more, as this shows little", accepted, fenced, lost)
	}
	c.Logf("%v: %v; jobs begun %d times; longest without an owner %v, %v after the last of %d troubles; guarded writes: %d committed, %d refused by the database, %d not sent",
		time.Duration(c.ended-c.began).Round(time.Second), c.happened, l.count(`select count(*) from worked`), gap.Round(time.Millisecond),
		untroubled.Round(time.Millisecond), l.count(`select count(*) from troubles`), accepted, fenced, lost)
}
