package assign

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// In the ledger each process writes what it does, in transactions that its jobs guard. A job's
// work begins only once the ledger says so, and its function returns only once the ledger says that it
// has ended.
var ledgerTables = []string{
	`create table began (process varchar(40) not null, member varchar(36) not null, job varchar(40) not null, slot bigint not null,
		epoch bigint not null, at bigint not null, primary key (member, job, at))`,

	// Planned: the function was told to return, by a session that was valid when it did. Fenced:
	// the database still knew it as the owner.
	`create table ended (member varchar(36) not null, job varchar(40) not null, slot bigint not null, began bigint not null, at bigint not null,
		planned bigint not null, fenced bigint not null, primary key (member, job, began))`,

	// What was written on behalf of each slot, in the order of commits, by whoever thought he owned it.
	`create table counters (slot bigint not null primary key, n bigint not null)`,
	`create table writes (slot bigint not null, n bigint not null, epoch bigint not null, member varchar(36) not null, primary key (slot, n))`,
	`create table refusals (member varchar(36) not null, slot bigint not null, epoch bigint not null, fenced bigint not null)`,

	// When a process was not heard by the database, or had to wait for the processor for long.
	`create table troubles (process varchar(40) not null, at bigint not null)`,

	// When a process that was killed gave its last sign.
	`create table killed (process varchar(40) not null primary key, at bigint not null)`,

	// When each job was worked on.
	`create view worked as select b.job, b.slot, b.epoch, b.member, b.at as began,
		case when b.at > coalesce(e.at, k.at) then b.at else coalesce(e.at, k.at) end as ended
		from began b
		left join ended e on e.member = b.member and e.job = b.job and e.began = b.at
		left join killed k on k.process = b.process`,
}

// ledger is the labour of a process that keeps it.
type ledger struct {
	db      *coordd.DB
	process string
	log     *slog.Logger
	life    *life
	member  string
	pages   chan entry
	known   int // of its troubles, that are written down

	mu  sync.Mutex
	had []Job // one of each slot that it has, or had lately
}

// entry is that a job has begun, or ended.
type entry struct {
	job          Job
	began, ended int64 // ended is 0 for one that begins
	planned      bool
	written      chan error
}

func newLedger(db *coordd.DB, spec memberSpec, log *slog.Logger) *ledger {
	return &ledger{db: db, process: spec.Name, log: log, life: beginLife(spec.Life, time.Millisecond), pages: make(chan entry)}
}

func (l *ledger) tell(string) string { return "" }

func (l *ledger) serve(ctx context.Context, s *heartbeat.Session) error {
	l.member = s.ID()
	defer l.life.beside(ctx, s)()
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	var working sync.WaitGroup
	working.Go(func() { l.writePages(beside) })
	working.Go(func() { l.writeTroubles(beside) })
	for range 2 {
		working.Go(func() { l.insist(beside) })
	}
	err := Run(ctx, s, Config{Group: "g", Logger: l.log}, func(ctx context.Context, j Job) error { return l.work(ctx, s, j) })
	stop()
	working.Wait()
	return err
}

// writeTroubles writes down what troubles there are.
func (l *ledger) writeTroubles(ctx context.Context) {
	for sleep(ctx, 10*time.Millisecond, nil) {
		all := l.life.troubles()
		for _, at := range all[l.known:] {
			l.persist(ctx, func(ctx context.Context) error {
				_, err := l.db.Exec(ctx, `insert into troubles (process, at) values (?, ?)`, l.process, at)
				return err
			})
		}
		l.known = len(all)
	}
}

// work is the function of a job.
func (l *ledger) work(ctx context.Context, s *heartbeat.Session, j Job) error {
	began := instant()
	if err := l.write(entry{job: j, began: began}); err != nil {
		return err // it is another's by now, or not to be known
	}
	l.life.busy.Add(1)
	<-ctx.Done()
	l.life.busy.Add(-1)
	ended := instant()
	planned := s.Valid()
	if !planned {
		ended = max(began, l.life.valid.Load())
	}
	return l.write(entry{job: j, began: began, ended: ended, planned: planned})
}

func (l *ledger) write(e entry) error {
	e.written = make(chan error, 1)
	l.pages <- e
	return <-e.written
}

// page is what is written at once: of one slot, in one epoch.
type page struct {
	slot  int
	epoch int64
	ends  bool
}

// writePages writes what comes together in a moment.
func (l *ledger) writePages(ctx context.Context) {
	var writing sync.WaitGroup
	defer writing.Wait()
	pens := make(chan struct{}, 4)
	for ctx.Err() == nil {
		pages := l.collect(ctx)
		for p, entries := range pages {
			pens <- struct{}{}
			writing.Go(func() {
				defer func() { <-pens }()
				err := l.writePage(context.WithoutCancel(ctx), p, entries)
				for _, e := range entries {
					e.written <- err
				}
			})
		}
	}
}

// collect waits for an entry, and a moment for more.
func (l *ledger) collect(ctx context.Context) map[page][]entry {
	pages := map[page][]entry{}
	var end <-chan time.Time
	for {
		select {
		case e := <-l.pages:
			p := page{e.job.Slot(), e.job.Epoch(), e.ended != 0}
			pages[p] = append(pages[p], e)
			if end == nil {
				end = time.After(5 * time.Millisecond)
			}
		case <-end:
			return pages
		case <-ctx.Done():
			return pages
		}
	}
}

func (l *ledger) writePage(ctx context.Context, p page, entries []entry) error {
	if !p.ends {
		err := l.persist(ctx, func(ctx context.Context) error { return l.writeBegins(ctx, entries) })
		if err == nil {
			l.remember(entries[0].job)
		}
		return err
	}
	err := l.persist(ctx, func(ctx context.Context) error { return l.writeEnds(ctx, entries, true) })
	if errors.Is(err, coordd.ErrFenced) {
		err = l.persist(ctx, func(ctx context.Context) error { return l.writeEnds(ctx, entries, false) })
	}
	return err
}

// persist does something until it succeeds, or can not: what the database did not answer or had no
// time for is done again.
func (l *ledger) persist(ctx context.Context, do func(context.Context) error) (err error) {
	for {
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		err = do(bounded)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, coordd.ErrFenced) || errors.Is(err, coordd.ErrLost) {
			return err
		}
		l.log.Info("the ledger is written once more", "error", err)
		sleep(ctx, 10*time.Millisecond, nil)
	}
}

func (l *ledger) writeBegins(ctx context.Context, entries []entry) error {
	var args []any
	for _, e := range entries {
		args = append(args, l.process, l.member, e.job.Key, e.job.Slot(), e.job.Epoch(), e.began)
	}
	return l.db.InTx(ctx, func(tx *sql.Tx) error {
		_, err := l.db.On(tx).Exec(ctx, `insert into began (process, member, job, slot, epoch, at) values `+rows(`(?, ?, ?, ?, ?, ?)`, len(entries))+` {or keep slot}`, args...)
		if err != nil {
			return err
		}
		return entries[0].job.Guard(ctx, tx)
	})
}

// writeEnds goes by the fence alone, as the work is over and the guard would not ask the database.
func (l *ledger) writeEnds(ctx context.Context, entries []entry, fenced bool) error {
	var args []any
	for _, e := range entries {
		args = append(args, l.member, e.job.Key, e.job.Slot(), e.began, e.ended, flag(e.planned), flag(fenced))
	}
	return l.db.InTx(ctx, func(tx *sql.Tx) error {
		_, err := l.db.On(tx).Exec(ctx, `insert into ended (member, job, slot, began, at, planned, fenced) values `+rows(`(?, ?, ?, ?, ?, ?, ?)`, len(entries))+` {or keep slot}`, args...)
		if err != nil || !fenced {
			return err
		}
		return byFence(ctx, tx, entries[0].job)
	})
}

// byFence asks the database, and no clock, whether a job is this member's.
func byFence(ctx context.Context, tx *sql.Tx, j Job) error {
	fence, err := j.Fence(ctx)
	if err != nil {
		return err
	}
	var bound string
	err = tx.QueryRowContext(ctx, fence.Query, fence.Args...).Scan(&bound)
	if errors.Is(err, sql.ErrNoRows) {
		return coordd.ErrFenced
	}
	return err
}

// remember keeps one job of a slot, so that somebody insists on it.
func (l *ledger) remember(j Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.had = append(l.had, j)
	l.had = l.had[max(0, len(l.had)-100):]
}

func (l *ledger) remembered() (j Job, some bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.had) == 0 {
		return Job{}, false
	}
	return l.had[rand.IntN(len(l.had))], true
}

// insist writes on behalf of slots that this process has or had, again and again, whatever it should
// know by now. What must not be written is for the guard to refuse, or, where no clock is asked, for
// the fence.
func (l *ledger) insist(ctx context.Context) {
	for sleep(ctx, rand.N(20*time.Millisecond), nil) {
		j, some := l.remembered()
		if !some {
			continue
		}
		guard := byFence
		if rand.IntN(4) == 0 {
			guard = func(ctx context.Context, tx *sql.Tx, j Job) error { return j.Guard(ctx, tx) }
		}
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		err := l.writeFor(bounded, j, guard)
		fenced := errors.Is(err, coordd.ErrFenced)
		if fenced || errors.Is(err, coordd.ErrLost) {
			_, err = l.db.Exec(bounded, `insert into refusals (member, slot, epoch, fenced) values (?, ?, ?, ?)`, l.member, j.Slot(), j.Epoch(), flag(fenced))
		}
		if err != nil {
			l.log.Info("it is not known what became of a write", "error", err)
		}
		cancel()
	}
}

// writeFor writes on behalf of a job's slot, and takes its time.
func (l *ledger) writeFor(ctx context.Context, j Job, guard func(context.Context, *sql.Tx, Job) error) error {
	return l.db.InTx(ctx, func(tx *sql.Tx) error {
		q := l.db.On(tx)
		if n, err := q.Exec(ctx, `update counters set n = n + 1 where slot = ?`, j.Slot()); err != nil || n != 1 {
			return fmt.Errorf("count the writes of slot %d: %d rows, %w", j.Slot(), n, err)
		}
		_, err := q.Exec(ctx, `insert into writes (slot, n, epoch, member) select slot, n, ?, ? from counters where slot = ?`, j.Epoch(), l.member, j.Slot())
		if err != nil {
			return err
		}
		sleep(ctx, rand.N(20*time.Millisecond), nil)
		if err := guard(ctx, tx, j); err != nil {
			return err
		}
		sleep(ctx, rand.N(2*time.Millisecond), nil)
		return nil
	})
}

// account is what the ledger says when all is over.
type account struct {
	*testing.T
	db *coordd.DB
}

func (a account) count(stmt string, args ...any) (n int64) {
	a.Helper()
	if err := a.db.Get(a.Context(), []any{&n}, stmt, args...); err != nil {
		a.Fatalf("%s: %v", stmt, err)
	}
	return n
}

// eachJobInTurn is each time that a job was worked on, and when the work on it that had begun before was over.
const eachJobInTurn = `(select job, began, epoch, max(ended) over (partition by job order by began, epoch rows between unbounded preceding and 1 preceding) as over_at,
	lag(epoch) over (partition by job order by began, epoch) as last_epoch from worked) w`

// wrong is what must not have happened.
func (a account) wrong() (wrong []string) {
	a.Helper()
	for _, look := range []struct{ what, stmt string }{
		{"jobs began while another had them", `select count(*) from ` + eachJobInTurn + ` where began < over_at`},
		{"jobs began in an older epoch than before", `select count(*) from ` + eachJobInTurn + ` where epoch < last_epoch`},
		{"jobs began and nobody knows when they ended", `select count(*) from worked where ended is null`},
		{"epochs were had by two", `select count(*) from (select slot, epoch from began group by slot, epoch having count(distinct member) > 1) w`},
		{"slots went before their functions had returned", `select count(*) from ended e join coordd_heartbeats h on h.member_id = e.member
			where e.planned = 1 and e.fenced = 0 and h.state <> 'dead'`},
		{"writes of an older epoch came after a newer one", `select count(*) from (
			select epoch, lag(epoch) over (partition by slot order by n) as last_epoch from writes) w where epoch < last_epoch`},
		{"writes were in the epoch of another", `select count(*) from writes w
			join (select distinct slot, epoch, member from began) b on b.slot = w.slot and b.epoch = w.epoch and b.member <> w.member`},
	} {
		if n := a.count(look.stmt); n > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: got %d, want none", look.what, n))
		}
	}
	return wrong
}

// gap is the longest time for which nobody worked on a job, and the longest that began with the end of the
// work on it or a later trouble.
func (a account) gap() (longest, untroubled time.Duration) {
	a.Helper()
	type gap struct{ from, to int64 }
	gaps, err := coordd.All(a.Context(), a.db.Queries, func(g *gap) []any { return []any{&g.from, &g.to} },
		`select distinct over_at, began from `+eachJobInTurn+` where began > over_at`)
	if err != nil {
		a.Fatal(err)
	}
	troubles, err := coordd.All(a.Context(), a.db.Queries, func(at *int64) []any { return []any{at} }, `select at from troubles order by at`)
	if err != nil {
		a.Fatal(err)
	}
	for _, g := range gaps {
		longest = max(longest, time.Duration(g.to-g.from))
		if i, _ := slices.BinarySearch(troubles, g.to); i > 0 {
			g.from = max(g.from, troubles[i-1])
		}
		untroubled = max(untroubled, time.Duration(g.to-g.from))
	}
	return longest, untroubled
}

// always counts jobs that had begun at an instant and were not over at another.
func (a account) always(from, to int64) int64 {
	a.Helper()
	return a.count(`select count(*) from (select job from worked group by job having min(began) <= ? and max(ended) >= ?) w`, from, to)
}

// The ledger's own questions find what they ask for.
func TestTheLedgerShowsWhatIsWrong(t *testing.T) {
	dbtest.AsAdministrator(t) // for tables of its own
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		a := account{t, db}
		write := func(stmts ...string) {
			for _, stmt := range stmts {
				if _, err := db.Exec(t.Context(), stmt); err != nil {
					t.Fatalf("%s: %v", stmt, err)
				}
			}
		}
		write(ledgerTables...)
		write(`insert into began (process, member, job, slot, epoch, at) values ('p', 'a', 'x', 1, 1, 100), ('p', 'b', 'x', 1, 2, 200), ('q', 'c', 'x', 1, 3, 350)`,
			`insert into ended (member, job, slot, began, at, planned, fenced) values ('a', 'x', 1, 100, 200, 1, 1), ('b', 'x', 1, 200, 300, 0, 0)`,
			`insert into killed (process, at) values ('q', 400)`,
			`insert into writes (slot, n, epoch, member) values (1, 1, 1, 'a'), (1, 2, 2, 'b')`,
			`insert into coordd_heartbeats (member_id, seq, state, ttl_ms, beat_us) values ('a', 1, 'alive', 1000, 0)`)
		if wrong := a.wrong(); wrong != nil || a.always(100, 400) != 1 || a.always(100, 401) != 0 {
			t.Errorf("where all is well: got %v, and %d and %d", wrong, a.always(100, 400), a.always(100, 401))
		}
		if longest, untroubled := a.gap(); longest != 50 || untroubled != 50 {
			t.Errorf("got gaps of %d and %d, want 50 and 50", longest, untroubled)
		}
		write(`insert into troubles (process, at) values ('p', 310)`)
		if longest, untroubled := a.gap(); longest != 50 || untroubled != 40 {
			t.Errorf("with a trouble in its midst: got gaps of %d and %d, want 50 and 40", longest, untroubled)
		}
		write(`insert into began (process, member, job, slot, epoch, at) values ('r', 'd', 'x', 1, 2, 399), ('s', 'd', 'y', 1, 5, 100)`,
			`update ended set fenced = 0 where member = 'a'`,
			`insert into writes (slot, n, epoch, member) values (1, 3, 1, 'a'), (1, 4, 1, 'z')`)
		want := []string{
			"jobs began while another had them: got 1, want none",
			"jobs began in an older epoch than before: got 1, want none",
			"jobs began and nobody knows when they ended: got 2, want none",
			"epochs were had by two: got 1, want none",
			"slots went before their functions had returned: got 1, want none",
			"writes of an older epoch came after a newer one: got 1, want none",
			"writes were in the epoch of another: got 2, want none",
		}
		if wrong := a.wrong(); !slices.Equal(wrong, want) {
			t.Errorf("got %q\nwant %q", wrong, want)
		}
	})
}
