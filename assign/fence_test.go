package assign

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// ownedJobs are a job of each of so many slots, which are this member's until the test ends.
func ownedJobs(tb testing.TB, db *coordd.DB, slots int) []Job {
	tb.Helper()
	g := quick
	g.Slots = slots
	if err := Define(tb.Context(), db, g); err != nil {
		tb.Fatal(err)
	}
	for i, filled := 0, map[int]bool{}; len(filled) < slots; i++ {
		key := fmt.Sprint("job-", i)
		if slot := SlotOf(key, slots); !filled[slot] {
			filled[slot] = true
			if _, err := Add(tb.Context(), db, g.Name, Spec{Key: key}); err != nil {
				tb.Fatal(err)
			}
		}
	}
	s, err := heartbeat.Join(tb.Context(), db, heartbeat.Config{Name: "a", TTL: 10 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	var mu sync.Mutex
	bySlot := map[int]Job{}
	ctx, stop := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, s, Config{Group: g.Name}, func(_ context.Context, j Job) error {
			mu.Lock()
			defer mu.Unlock()
			bySlot[j.Slot()] = j
			return nil
		})
	}()
	tb.Cleanup(func() {
		stop()
		<-done
		s.Leave(context.Background())
	})
	dbtest.Eventually(tb, "a job of each slot", func() bool { mu.Lock(); defer mu.Unlock(); return len(bySlot) == slots })
	var jobs []Job
	for slot := range slots {
		jobs = append(jobs, bySlot[slot])
	}
	return jobs
}

// fenced is a statement that ends in a condition, as one with the fence. The fence's arguments come first.
func fenced(f coordd.Fence, stmt string) string {
	return "with fence as (" + f.Query + ") " + stmt + " and exists (select 1 from fence)"
}

// onlyLooks asks what the fence asks, and locks nothing.
func onlyLooks(_ coordd.Fence, stmt string) string {
	return stmt + ` and exists (select set_config('idle_in_transaction_session_timeout', $1, true)
		from coordd_slots where grp = $2 and slot = $3 and owner = $4 and epoch = $5)`
}

// actor is one connection to PostgreSQL.
type actor struct {
	*testing.T
	conn *sql.Conn
	pid  int // by which the server knows it
}

func newActor(t *testing.T, db *coordd.DB) actor {
	t.Helper()
	conn, err := db.Pool().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	a := actor{T: t, conn: conn}
	if err := conn.QueryRowContext(t.Context(), `select pg_backend_pid()`).Scan(&a.pid); err != nil {
		t.Fatal(err)
	}
	return a
}

// begins begins a statement, and tells how many rows it has changed.
func (a actor) begins(stmt string, args ...any) (changed <-chan int64) {
	rows := make(chan int64, 1)
	go func() {
		n := int64(-1)
		result, err := a.conn.ExecContext(a.Context(), stmt, args...)
		if err == nil {
			n, err = result.RowsAffected()
		}
		if err != nil {
			a.Errorf("%s: %v", stmt, err)
		}
		rows <- n
	}()
	return rows
}

func (a actor) does(stmt string, args ...any) (changed int64) { return <-a.begins(stmt, args...) }

// waits waits until it waits for a lock.
func (a actor) waits(db *coordd.DB) {
	a.Helper()
	dbtest.Eventually(a.T, "a statement that waits for a lock", func() bool {
		var n int
		err := db.Get(a.Context(), []any{&n}, `select count(*) from pg_locks where pid = ? and not granted`, a.pid)
		return err == nil && n > 0
	})
}

// interleaving is a write of a job, its slot that goes to another meanwhile, and somebody who keeps the
// row that is written.
type interleaving struct {
	db                     *coordd.DB
	writer, mover, blocker actor
	write, move, block     string
	fence                  []any
}

func interleave(t *testing.T, wrap func(coordd.Fence, string) string) interleaving {
	t.Parallel()
	dbtest.AsAdministrator(t) // for a table of its own
	db := dbtest.Migrated(t, dbtest.PostgresSchema(t))
	j := ownedJobs(t, db, 1)[0]
	i := interleaving{db: db, writer: newActor(t, db), mover: newActor(t, db), blocker: newActor(t, db)}
	i.blocker.does(`create table accounts (id bigint not null primary key, balance bigint not null)`)
	i.blocker.does(`insert into accounts (id, balance) values (42, 0)`)
	f, err := j.Fence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i.write, i.fence = wrap(f, `update accounts set balance = balance + 1 where id = 42`), f.Args
	i.move = `update coordd_slots set owner = 'another', epoch = epoch + 1 where grp = 'g' and slot = 0`
	i.block = `select balance from accounts where id = 42 for update`
	return i
}

// A write that goes through the fence in one statement comes before the slot is another's, or not at all.
func TestAFencedStatementIsSafe(t *testing.T) {
	i := interleave(t, fenced)
	i.blocker.does(`begin`)
	i.blocker.does(i.block)
	written := i.writer.begins(i.write, i.fence...)
	i.writer.waits(i.db) // it has passed the fence, and waits for its row
	i.mover.does(`begin`)
	moved := i.mover.begins(i.move)
	i.mover.waits(i.db) // for the write
	i.blocker.does(`commit`)
	if n := <-written; n != 1 {
		t.Errorf("before the slot has moved: got %d rows written, want 1", n)
	}
	<-moved
	written = i.writer.begins(i.write, i.fence...)
	i.writer.waits(i.db) // at the fence, for what becomes of the move
	i.mover.does(`commit`)
	if n := <-written; n != 0 {
		t.Errorf("while the slot moved: got %d rows written, want none", n)
	}
	if n := i.writer.does(i.write, i.fence...); n != 0 {
		t.Errorf("when the slot has moved: got %d rows written, want none", n)
	}
}

// What makes the fence safe is its lock: without it the same write comes when the slot has moved.
func TestAStatementThatOnlyLooksIsNotSafe(t *testing.T) {
	i := interleave(t, onlyLooks)
	i.blocker.does(`begin`)
	i.blocker.does(i.block)
	written := i.writer.begins(i.write, i.fence...)
	i.writer.waits(i.db)
	if n := i.mover.does(i.move); n != 1 { // nobody keeps it
		t.Errorf("got %d slots moved, want 1", n)
	}
	i.blocker.does(`commit`)
	if n := <-written; n != 1 {
		t.Errorf("a write that began before the slot has moved and goes on after: got %d rows written, want 1, as is known of PostgreSQL", n)
	}
}

// What a write costs that is fenced, beside the same without: one statement, and a hundred in a
// transaction. They take turns, so that whatever else the machine does befalls them both; what counts is
// the ratio. Commits are durable, as a user's are, but where it says that they are not.
func BenchmarkFence(b *testing.B) {
	for _, server := range []struct {
		name  string
		start func(testing.TB, dbtest.Extra) *dbtest.Server // nil: SQLite
		args  []string
	}{
		{"postgres", dbtest.StartPostgres, []string{"-c", "fsync=on", "-c", "full_page_writes=on"}},
		{"postgres without fsync", dbtest.StartPostgres, nil},
		{"mysql", dbtest.StartMySQL, []string{"--innodb-flush-log-at-trx-commit=1", "--innodb-doublewrite=1"}},
		{"sqlite", nil, nil},
	} {
		b.Run(server.name, func(b *testing.B) {
			dsn := dbtest.SQLiteFile(b)
			if server.start != nil {
				dsn = server.start(b, dbtest.Extra{Args: server.args}).DSN()
				if server.name == "mysql" {
					dsn = inDatabase(b, dsn)
				}
			}
			r := newRivals(b, dsn)
			for _, workers := range []int{1, 8} {
				for mode, pool := range r.pools {
					b.Run(fmt.Sprintf("one statement %s/%d", mode, workers), func(b *testing.B) { r.race(b, workers, 50, r.statement(pool, workers)) })
				}
				if r.pools != nil {
					b.Run(fmt.Sprintf("one statement prepared, all of one slot/%d", workers), func(b *testing.B) { r.race(b, workers, 50, r.statement(r.pools["prepared"], 1)) })
				}
				b.Run(fmt.Sprintf("a hundred in a transaction/%d", workers), func(b *testing.B) { r.race(b, workers, 2, r.transaction) })
			}
		})
	}
}

// inDatabase makes a database on a server of the MySQL family, as its DSN names none.
func inDatabase(b *testing.B, dsn string) string {
	db := dbtest.Open(b, dsn)
	if _, err := db.Pool().ExecContext(b.Context(), `create database bench`); err != nil {
		b.Fatal(err)
	}
	return dsn + "bench"
}

// rivals write to a table each, which are alike.
type rivals struct {
	db    *coordd.DB
	pools map[string]*sql.DB // to PostgreSQL: as pgx has it, and as coordd opens its own
	jobs  []Job              // one for each worker, of different slots
}

const rowsEach = 100 // of a worker

func newRivals(b *testing.B, dsn string) *rivals {
	db := dbtest.Migrated(b, dsn)
	r := &rivals{db: db, jobs: ownedJobs(b, db, 8)}
	db.Pool().SetMaxIdleConns(len(r.jobs) + 2) // to connect is not what is measured
	if strings.HasPrefix(dsn, "postgres:") {
		prepared, err := sql.Open("pgx", dsn)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { prepared.Close() })
		prepared.SetMaxIdleConns(len(r.jobs))
		r.pools = map[string]*sql.DB{"prepared": prepared, "parsed each time": db.Pool()}
	}
	for _, table := range []string{"plain", "fenced"} {
		if _, err := db.Exec(b.Context(), `create table `+table+` (id bigint not null primary key, balance bigint not null)`); err != nil {
			b.Fatal(err)
		}
		for id := range rowsEach * len(r.jobs) {
			if _, err := db.Exec(b.Context(), `insert into `+table+` (id, balance) values (?, 0)`, id); err != nil {
				b.Fatal(err)
			}
		}
	}
	return r
}

// race has workers do something some times in a row, plain and fenced in turn. Of the turns the
// median counts.
func (r *rivals) race(b *testing.B, workers, inARow int, do func(ctx context.Context, worker int, fenced bool) error) {
	turns := map[bool][]time.Duration{}
	for b.Loop() {
		for _, fenced := range []bool{false, true} {
			began := time.Now()
			var working sync.WaitGroup
			for w := range workers {
				working.Go(func() {
					for range inARow {
						if err := do(b.Context(), w, fenced); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			working.Wait()
			turns[fenced] = append(turns[fenced], time.Since(began))
		}
	}
	plain, fenced := median(turns[false]).Seconds(), median(turns[true]).Seconds()
	b.ReportMetric(0, "ns/op") // of both together: it says nothing
	b.ReportMetric(float64(workers*inARow)/plain, "plain/s")
	b.ReportMetric(float64(workers*inARow)/fenced, "fenced/s")
	b.ReportMetric(100*(1-plain/fenced), "%-less")
}

func median(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

// statement writes a row by one statement, that goes through the fence of one of some slots.
func (r *rivals) statement(pool *sql.DB, slots int) func(context.Context, int, bool) error {
	var turns [8]int
	return func(ctx context.Context, worker int, through bool) error {
		turns[worker]++
		id := worker*rowsEach + turns[worker]%rowsEach
		if !through {
			return oneRow(pool.ExecContext(ctx, `update plain set balance = balance + 1 where id = $1`, id))
		}
		f, err := r.jobs[worker%slots].Fence(ctx)
		if err != nil {
			return err
		}
		return oneRow(pool.ExecContext(ctx, fenced(f, `update fenced set balance = balance + 1 where id = $6`), append(f.Args, id)...))
	}
}

func oneRow(result sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); n != 1 || err != nil {
		return fmt.Errorf("got %d rows, %w, want 1", n, err)
	}
	return nil
}

// transaction writes a worker's hundred rows.
func (r *rivals) transaction(ctx context.Context, worker int, guarded bool) error {
	table := map[bool]string{false: "plain", true: "fenced"}[guarded]
	return r.db.InTx(ctx, func(tx *sql.Tx) error {
		q := r.db.On(tx)
		for id := range rowsEach {
			if _, err := q.Exec(ctx, `update `+table+` set balance = balance + 1 where id = ?`, worker*rowsEach+id); err != nil {
				return err
			}
		}
		if !guarded {
			return nil
		}
		return r.jobs[worker].Guard(ctx, tx)
	})
}
