package assign

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// crowd is the labour of a process that runs a function for each job, which waits for its end.
type crowd struct {
	life *life
	log  *slog.Logger
}

func (c *crowd) serve(ctx context.Context, s *heartbeat.Session) error {
	defer c.life.beside(ctx, s)()
	return Run(ctx, s, Config{Group: "g", Logger: c.log}, func(ctx context.Context, _ Job) error {
		c.life.busy.Add(1)
		defer c.life.busy.Add(-1)
		<-ctx.Done()
		return nil
	})
}

func (c *crowd) tell(string) string { return footprintNow() }

// loop is the labour of a process that looks after all jobs in one loop.
type loop struct {
	life *life
	log  *slog.Logger
}

func (l *loop) serve(ctx context.Context, s *heartbeat.Session) error {
	defer l.life.beside(ctx, s)()
	for c, err := range Changes(ctx, s, Config{Group: "g", Logger: l.log}) {
		if err != nil {
			return err
		}
		l.life.busy.Add(int64(len(c.Acquired) - len(c.Released)))
		c.Done()
	}
	return nil
}

func (l *loop) tell(string) string { return footprintNow() }

// footprint is what a process takes, in MB: at the most, now, and on its heap after a collection.
type footprint struct{ Peak, Resident, Heap int }

func footprintNow() string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	var m footprint
	for line := range strings.Lines(string(status)) {
		var kB int
		switch {
		case scan(line, "VmHWM: %d", &kB):
			m.Peak = kB / 1024
		case scan(line, "VmRSS: %d", &kB):
			m.Resident = kB / 1024
		}
	}
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m.Heap = int(stats.HeapAlloc >> 20)
	line, err := json.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(line)
}

// manyJobs adds so many jobs, and says how long that took.
func manyJobs(tb testing.TB, db *coordd.DB, g Group, n int) time.Duration {
	tb.Helper()
	if err := Define(tb.Context(), db, g); err != nil {
		tb.Fatal(err)
	}
	specs := make([]Spec, n)
	for i := range specs {
		specs[i] = Spec{Key: fmt.Sprintf("customer-%07d", i), Payload: `{"interval":"30s"}`}
	}
	began := time.Now()
	if added, err := Add(tb.Context(), db, g.Name, specs...); err != nil || added != n {
		tb.Fatalf("added %d jobs, %v; want %d", added, err, n)
	}
	return time.Since(began)
}

// A page of jobs is found by its key, and those of some slots by the slots: nobody reads all jobs for it.
func TestNobodyReadsAllJobsForSome(t *testing.T) {
	dbtest.AsAdministrator(t) // for it has statistics made
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		const jobs, page, slots = 20_000, 100, 4096
		product, err := db.Product(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		most := 4 * page
		if product == "PostgreSQL" { // which would make statistics of some tables and not of others meanwhile
			for _, table := range []string{"coordd_slots", "coordd_jobs"} {
				if _, err := db.Exec(t.Context(), `alter table `+table+` set (autovacuum_enabled = false)`); err != nil {
					t.Fatal(err)
				}
			}
			most = jobs // once, as stmtJobsOf says
		}
		manyJobs(t, db, Group{Name: "g", Slots: slots}, jobs)
		ofSlots, some := jobsOf("g", []int{0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4000, 4095})
		if n := examined(t, db, ofSlots, some...); n > most {
			t.Errorf("those of 20 slots, before there are statistics: got %d rows examined of %d, want %d at most", n, jobs, most)
		}
		if product == "PostgreSQL" {
			if _, err := db.Exec(t.Context(), `analyze`); err != nil { // as it does by itself within a minute
				t.Fatal(err)
			}
		}
		for _, after := range []string{"", "customer-0010000", "customer-0019950"} {
			if n := examined(t, db, stmtList, "g", after, page); n > 10*page {
				t.Errorf("a page after %q: got %d rows examined of %d, want not many more than %d", after, n, jobs, page)
			}
		}
		if n := examined(t, db, ofSlots, some...); n > 4*page {
			t.Errorf("those of 20 slots: got %d rows examined of %d, want not many more than %d", n, jobs, page)
		}
		if n := examined(t, db, stmtLookup, "g", "customer-0010000"); n > 10 {
			t.Errorf("one: got %d rows examined of %d, want not many more than 1", n, jobs)
		}
	})
}

// examined is how many rows of tables the database looks at for a statement.
func examined(t *testing.T, db *coordd.DB, stmt string, args ...any) int {
	t.Helper()
	product, err := db.Product(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if stmt, err = db.Text(t.Context(), stmt); err != nil {
		t.Fatal(err)
	}
	conn, err := db.Pool().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	switch product {
	case "PostgreSQL":
		return explained(t, conn, stmt, args)
	case "SQLite":
		scans(t, conn, stmt, args)
		return 0
	}
	before := handled(t, conn)
	idle := handled(t, conn) - before // what asking takes
	rows, err := conn.QueryContext(t.Context(), stmt, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return handled(t, conn) - before - 2*idle
}

// explained asks PostgreSQL, which executes the statement and counts.
func explained(t *testing.T, conn *sql.Conn, stmt string, args []any) int {
	t.Helper()
	var text string
	if err := conn.QueryRowContext(t.Context(), `explain (analyze, format json) `+stmt, args...).Scan(&text); err != nil {
		t.Fatal(err)
	}
	type node struct {
		Relation string  `json:"Relation Name"`
		Rows     float64 `json:"Actual Rows"`
		Removed  float64 `json:"Rows Removed by Filter"`
		Loops    float64 `json:"Actual Loops"`
		Plans    []node
	}
	var plan []struct{ Plan node }
	if err := json.Unmarshal([]byte(text), &plan); err != nil || len(plan) != 1 {
		t.Fatalf("%v in %s", err, text)
	}
	var count func(n node) float64
	count = func(n node) (total float64) {
		if n.Relation != "" {
			total = (n.Rows + n.Removed) * n.Loops
		}
		for _, below := range n.Plans {
			total += count(below)
		}
		return total
	}
	return int(count(plan[0].Plan))
}

// scans asks SQLite, which tells of scans and searches and counts nothing: a scan is of everything,
// unless it is of what a search has found.
func scans(t *testing.T, conn *sql.Conn, stmt string, args []any) {
	t.Helper()
	rows, err := conn.QueryContext(t.Context(), `explain query plan `+stmt, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := map[string]bool{}
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		switch words := strings.Fields(detail); words[0] {
		case "CO-ROUTINE", "MATERIALIZE":
			found[words[1]] = true
		case "SCAN":
			if !found[words[1]] {
				t.Errorf("SQLite reads everything: %s", detail)
			}
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// handled is how many rows a connection to a server of the MySQL family has read.
func handled(t *testing.T, conn *sql.Conn) (total int) {
	t.Helper()
	rows, err := conn.QueryContext(t.Context(), `show session status like 'Handler\_read\_%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var n int
		if err := rows.Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return total
}

// A process that looks after a hundred thousand jobs has begun all within seconds, and takes little memory.
func TestAMemberHasAHundredThousandJobs(t *testing.T) {
	t.Parallel()
	const jobs = 100_000
	for database, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		t.Run(database, func(t *testing.T) {
			if !*figures {
				t.Parallel()
			}
			dsn := schema(t)
			db := dbtest.Migrated(t, dsn)
			added := manyJobs(t, db, Group{Name: "g", Options: Options{Gather: 10 * time.Millisecond}}, jobs)
			for work, most := range map[string]int{"crowd": 600, "loop": 150} {
				t.Run(work, func(t *testing.T) {
					f, took := hold(t, dsn, work, jobs)
					for tries := 1; f.Peak > most && tries < 3 && !*figures; tries++ { // a peak is the collector's chance too
						t.Logf("once more, after %+v MB", f)
						f, took = hold(t, dsn, work, jobs)
					}
					if f.Peak > most && !dbtest.Racing() {
						t.Errorf("got %d MB at the most, want %d", f.Peak, most)
					}
					if *figures {
						fmt.Printf("| %s | %s | %v | %v | %d | %d | %d | %d |\n", database, work, added.Round(10*time.Millisecond), took.Round(10*time.Millisecond), f.Peak, f.Resident, f.Heap, most)
					} else {
						t.Logf("added in %v, begun in %v: %+v MB", added, took, f)
					}
				})
			}
		})
	}
}

// hold has a process look after so many jobs, and says what it took.
func hold(t *testing.T, dsn, work string, jobs int) (f footprint, took time.Duration) {
	t.Helper()
	began := time.Now()
	p := start(t, memberSpec{DSN: dsn, Name: work, TTL: 15 * time.Second, Work: work, Verbose: testing.Verbose() && !*figures})
	dbtest.Eventually(t, "work on all jobs", func() bool { _, busy := p.lastSign(); return busy == jobs })
	took = time.Since(began)
	if err := json.Unmarshal([]byte(p.ask("footprint")), &f); err != nil {
		t.Fatal(err)
	}
	p.leave()
	return f, took
}

// A million jobs: how long it takes to add them, to count what the slots weigh, and to read a page.
func TestAMillionJobs(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		jobs := 20_000
		if *figures {
			jobs = 1_000_000
		}
		added := manyJobs(t, db, Group{Name: "g"}, jobs)
		began := time.Now()
		loads, err := readLoads(t.Context(), db.Queries, "g", 4096)
		counted := time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, load := range loads {
			sum += load
		}
		if sum != float64(jobs) {
			t.Errorf("got a load of %v, want %d", sum, jobs)
		}
		began = time.Now()
		pages, last := 0, ""
		for after := ""; ; pages++ {
			page, err := List(t.Context(), db, "g", after, 100)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			if page[0].Key <= last {
				t.Fatalf("got %s after %s, want jobs in order", page[0].Key, last)
			}
			last = page[len(page)-1].Key
			after = last
		}
		if pages != jobs/100 {
			t.Errorf("got %d pages, want %d", pages, jobs/100)
		}
		paged := time.Since(began) / time.Duration(pages)
		t.Logf("%d jobs added in %v, counted in %v; a page in %v", jobs, added, counted, paged)
	})
}
