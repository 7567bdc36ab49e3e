package assign_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/coorddtest"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// The Go of docs/recipes/jobs.md stands here, word for word.

// A monitor asks every few seconds how a stream job does, and writes it down.
type monitor struct {
	server string
	pool   *sql.DB
	every  time.Duration
	ask    func(ctx context.Context, url string) (state string, err error)
}

// run monitors what falls to this server, until ctx ends.
func (m monitor) run(ctx context.Context, s *heartbeat.Session) error {
	return assign.Run(ctx, s, assign.Config{Group: "monitors"}, m.watch)
}

// watch monitors one stream job. Its ctx ends when the job moves or is removed, and with the session.
func (m monitor) watch(ctx context.Context, job assign.Job) error {
	next := time.NewTicker(m.every)
	defer next.Stop()
	for {
		state, err := m.ask(ctx, job.Payload)
		if err != nil {
			return err // watch is called again after a pause, which grows from a second to a minute
		}
		if err := m.write(ctx, job, state); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
	}
}

// write is guarded: a server that was frozen while its job has gone to another writes nothing.
func (m monitor) write(ctx context.Context, job assign.Job, state string) error {
	tx, err := m.pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, `update stream_jobs set state = ?, seen_by = ? where name = ?`, state, m.server, job.Key); err != nil {
		return err
	}
	if err := job.Guard(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// A poller reads from all partitions of this server in one loop.
type poller struct {
	read func(ctx context.Context, partition assign.Job)

	mu         sync.Mutex
	partitions map[string]owned
}

type owned struct {
	assign.Job
	ctx context.Context // of its slot
}

// run polls what falls to this server, until ctx ends.
func (p *poller) run(ctx context.Context, s *heartbeat.Session) error {
	done := make(chan struct{})
	defer func() { <-done }() // nothing is read any more when run returns
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			p.round()
			time.Sleep(10 * time.Millisecond)
		}
	}()
	for change, err := range assign.Changes(ctx, s, assign.Config{Group: "partitions"}) {
		if err != nil {
			return err
		}
		p.take(change)
		change.Done() // from now on another may have what was released
	}
	return nil
}

// take waits for the round that is under way: what was released is not read any more when it returns.
func (p *poller) take(change assign.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range change.Released {
		delete(p.partitions, key)
	}
	for _, job := range change.Acquired {
		p.partitions[job.Key] = owned{job, change.Context}
	}
}

// round reads from each partition once. Valid asks the clock alone, and the context ends with it.
func (p *poller) round() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, partition := range p.partitions {
		if partition.Valid() {
			p.read(partition.ctx, partition.Job)
		}
	}
}

// onboard makes a tenant, who is looked after once this is committed, and never if it is not.
func onboard(ctx context.Context, db *coordd.DB, tenant, plan string, weight int) error {
	tx, err := db.Pool().BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `insert into tenants values (?)`, tenant); err != nil {
		return err
	}
	spec := assign.Spec{Key: tenant, Weight: weight, Labels: map[string]string{"plan": plan}}
	if _, err := assign.AddTx(ctx, db, tx, "tenants", spec); err != nil {
		return err
	}
	return tx.Commit()
}

// serve looks after tenants. A server of capacity "2" is given twice the load of one of "1".
func serve(ctx context.Context, db *coordd.DB, server, capacity string, tend func(context.Context, assign.Job) error) error {
	member := heartbeat.Config{Name: server, Labels: map[string]string{assign.WeightLabel: capacity}}
	return heartbeat.Run(ctx, db, member, func(ctx context.Context, s *heartbeat.Session) error {
		return assign.Run(ctx, s, assign.Config{Group: "tenants"}, tend)
	})
}

// example has what coorddtest asks of a test.
type example struct {
	testing.TB
	ends []func()
}

func (*example) Helper()                       {}
func (*example) Fatal(why ...any)              { log.Fatal(why...) }
func (*example) Errorf(what string, of ...any) { log.Fatalf(what, of...) }
func (e *example) Cleanup(f func())            { e.ends = append(e.ends, f) }
func (e *example) end() {
	for _, f := range slices.Backward(e.ends) {
		f()
	}
}

// must ends an example that has failed.
func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// comes waits for what is bound to come.
func comes(condition func() bool) {
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			log.Fatal("it has not come in a minute")
		}
	}
}

// server runs something under a session of its own, as one machine would, until stop is called.
func server(db *coordd.DB, name string, run func(context.Context, *heartbeat.Session) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- heartbeat.Run(ctx, db, heartbeat.Config{Name: name}, run) }()
	return func() {
		cancel()
		must(<-ended)
	}
}

// defined makes a group that does not wait for servers that might come.
func defined(ctx context.Context, db *coordd.DB, name string) {
	must(assign.Define(ctx, db, assign.Group{Name: name, Slots: 120, Options: assign.Options{Gather: 10 * time.Millisecond, MoveCap: 100}}))
}

// Two servers monitor stream jobs. One shuts down, and the other has them all.
func ExampleRun_monitors() {
	e := new(example)
	defer e.end()
	ctx, db := context.Background(), coorddtest.SQLite(e)
	defined(ctx, db, "monitors")
	_, err := db.Pool().ExecContext(ctx, `create table stream_jobs (name varchar(200) primary key, state varchar(20), seen_by varchar(200))`)
	must(err)
	for _, name := range []string{"clicks", "orders", "payments", "refunds"} {
		_, err := db.Pool().ExecContext(ctx, `insert into stream_jobs (name) values (?)`, name)
		must(err)
		_, err = assign.Add(ctx, db, "monitors", assign.Spec{Key: name, Payload: "http://flink:8081/jobs/" + name})
		must(err)
	}
	ask := func(context.Context, string) (string, error) { return "RUNNING", nil }
	start := func(name string) (stop func()) {
		return server(db, name, monitor{name, db.Pool(), 20 * time.Millisecond, ask}.run)
	}
	seen := func(by string) (n int) {
		must(db.Pool().QueryRowContext(ctx, `select count(*) from stream_jobs where state = 'RUNNING' and seen_by = ?`, by).Scan(&n))
		return n
	}
	stop7, stop8 := start("app-7"), start("app-8")
	comes(func() bool { return seen("app-7") == 2 && seen("app-8") == 2 })
	fmt.Println("app-7 and app-8 monitor two each")
	stop7()
	comes(func() bool { return seen("app-8") == 4 })
	fmt.Println("app-7 has left: app-8 monitors all four")
	stop8()
	// Output:
	// app-7 and app-8 monitor two each
	// app-7 has left: app-8 monitors all four
}

// Two servers read from six partitions, each from its own in one loop.
func ExampleChanges_partitions() {
	e := new(example)
	defer e.end()
	ctx, db := context.Background(), coorddtest.SQLite(e)
	defined(ctx, db, "partitions")
	for i := range 6 {
		_, err := assign.Add(ctx, db, "partitions", assign.Spec{Key: fmt.Sprint("orders-", i)})
		must(err)
	}
	var mu sync.Mutex
	readers := map[string]string{} // who has read from a partition last
	start := func(name string) (stop func()) {
		p := &poller{partitions: map[string]owned{}, read: func(_ context.Context, partition assign.Job) {
			mu.Lock()
			defer mu.Unlock()
			readers[partition.Key] = name
		}}
		return server(db, name, p.run)
	}
	reads := func(name string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, by := range readers {
			if by == name {
				n++
			}
		}
		return n
	}
	stop7 := start("app-7")
	comes(func() bool { return reads("app-7") == 6 })
	stop8 := start("app-8")
	comes(func() bool { return reads("app-7") == 3 && reads("app-8") == 3 })
	mu.Lock()
	fmt.Println(slices.Sorted(maps.Keys(readers)))
	mu.Unlock()
	stop7()
	comes(func() bool { return reads("app-8") == 6 })
	fmt.Println("app-8 reads from all")
	stop8()
	// Output:
	// [orders-0 orders-1 orders-2 orders-3 orders-4 orders-5]
	// app-8 reads from all
}

// Tenants differ in weight, and servers in capacity. A tenant whose plan changes is begun anew.
func ExampleAddTx_tenants() {
	e := new(example)
	defer e.end()
	ctx, cancel := context.WithCancel(context.Background())
	db := coorddtest.SQLite(e)
	defined(ctx, db, "tenants")
	_, err := db.Pool().ExecContext(ctx, `create table tenants (name varchar(200) primary key)`)
	must(err)
	for i := range 60 {
		must(onboard(ctx, db, fmt.Sprint("tenant-", i), "basic", 1+i%3))
	}
	var mu sync.Mutex
	load, plans := map[string]int{}, map[string]string{}
	count := func(server string, job assign.Job, by int) {
		mu.Lock()
		defer mu.Unlock()
		load[server] += by * job.Weight
		plans[job.Key] = job.Labels["plan"]
	}
	var servers sync.WaitGroup
	for name, capacity := range map[string]string{"large": "2", "small": "1"} {
		servers.Go(func() {
			must(serve(ctx, db, name, capacity, func(ctx context.Context, job assign.Job) error {
				count(name, job, 1)
				defer count(name, job, -1)
				<-ctx.Done() // look after the tenant until then
				return nil
			}))
		})
	}
	comes(func() bool { // of 120 in all
		mu.Lock()
		defer mu.Unlock()
		return load["large"]+load["small"] == 120 && load["large"] >= 76 && load["large"] <= 84
	})
	fmt.Println("the large server has two thirds of the load")
	must(assign.Update(ctx, db, "tenants", assign.Spec{Key: "tenant-7", Weight: 2, Labels: map[string]string{"plan": "gold"}}))
	comes(func() bool {
		mu.Lock()
		defer mu.Unlock()
		return plans["tenant-7"] == "gold"
	})
	fmt.Println("tenant-7 is looked after by its new plan")
	cancel()
	servers.Wait()
	// Output:
	// the large server has two thirds of the load
	// tenant-7 is looked after by its new plan
}

// blocks are those of docs/recipes/jobs.md of one kind: what stands behind the backquotes.
func blocks(t *testing.T, kind string) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/recipes/jobs.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rest := range strings.Split(string(text), "```"+kind+"\n")[1:] {
		block, _, _ := strings.Cut(rest, "```\n")
		all = append(all, block)
	}
	return all
}

func TestTheGoOfTheRecipesIsWhatIsTested(t *testing.T) {
	source, err := os.ReadFile("recipes_test.go")
	if err != nil {
		t.Fatal(err)
	}
	all := blocks(t, "go")
	for _, block := range all {
		if !strings.Contains(string(source), block) {
			t.Errorf("not in this file, so not tested:\n%s", block)
		}
	}
	if len(all) != 3 {
		t.Errorf("got %d blocks, want 3", len(all))
	}
}

// The guard of the recipe finds its row while the job is the member's, and none under another epoch, by
// another member or when it has been given back.
func TestTheSQLOfTheRecipes(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.AsAdministrator(t)
		db := dbtest.Migrated(t, dsn)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := db.Pool().ExecContext(ctx, `create table stream_jobs (name varchar(200) primary key, state varchar(20))`)
		if err != nil {
			t.Fatal(err)
		}
		defined(ctx, db, "monitors")
		if _, err := assign.Add(ctx, db, "monitors", assign.Spec{Key: "orders"}); err != nil {
			t.Fatal(err)
		}
		s, err := heartbeat.Join(ctx, db, heartbeat.Config{Name: "app-7"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Leave(context.WithoutCancel(ctx))
		begun, ended := make(chan assign.Job), make(chan error, 1)
		go func() {
			ended <- assign.Run(ctx, s, assign.Config{Group: "monitors"}, func(ctx context.Context, job assign.Job) error {
				begun <- job
				<-ctx.Done()
				return nil
			})
		}()
		job := <-begun
		share := map[string]string{"postgres": "for share", "mysql": "lock in share mode", "sqlite": ""}
		database, _, _ := strings.Cut(dsn, ":")
		found := func(slot int, epoch int64, owner string) bool {
			t.Helper()
			script := blocks(t, "sql job")[0]
			for placeholder, is := range map[string]string{
				"slot = 371": "slot = " + strconv.Itoa(slot), "epoch = 4": fmt.Sprint("epoch = ", epoch), "'0190...'": "'" + owner + "'", "for share": share[database],
			} {
				if strings.Count(script, placeholder) != 1 {
					t.Fatalf("docs/recipes/jobs.md: want %q once", placeholder)
				}
				script = strings.Replace(script, placeholder, is, 1)
			}
			stmts := strings.Split(strings.TrimSuffix(strings.TrimSpace(script), ";"), ";")
			conn, err := db.Pool().Conn(context.WithoutCancel(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var got int64
			guard := error(nil)
			for i, stmt := range stmts {
				switch {
				case i == len(stmts)-2:
					if guard = conn.QueryRowContext(t.Context(), stmt).Scan(&got); guard != nil && !errors.Is(guard, sql.ErrNoRows) {
						t.Fatalf("%s: %v", stmt, guard)
					}
				case i == len(stmts)-1 && guard != nil:
					stmt = "rollback"
					fallthrough
				default:
					if _, err := conn.ExecContext(t.Context(), stmt); err != nil {
						t.Fatalf("%s: %v", stmt, err)
					}
				}
			}
			return guard == nil && got == epoch
		}
		if !found(job.Slot(), job.Epoch(), s.ID()) {
			t.Error("the guard of the owner found nothing")
		}
		if found(job.Slot(), job.Epoch()-1, s.ID()) || found(job.Slot(), job.Epoch(), "another") {
			t.Error("the guard of an older epoch, or of another, found something")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if found(job.Slot(), job.Epoch(), s.ID()) {
			t.Error("the guard of who has given the job back found something")
		}
	})
}
