package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

var (
	freezes    = flag.Int("freezes", 12, "how many faults TestACommandIsDeadBeforeAnotherHoldsTheLock injects")
	freezeSeed = flag.Uint64("freeze-seed", 0, "their seed; 0: any")
)

// childrenOf are the processes that a process has started, or adopted.
func childrenOf(pid int) (found []int) {
	dirs, _ := os.ReadDir("/proc")
	for _, dir := range dirs {
		child, err := strconv.Atoi(dir.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + dir.Name() + "/stat")
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			found = append(found, child)
		}
	}
	return found
}

// contender is one of those who want the lock: a wrapper that is started again whenever it has
// ended.
type contender struct {
	mu  sync.Mutex
	now *process
}

func (c *contender) wrapper() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// contend runs one wrapper after the other until the test says that it is enough, and then ends the last.
func (c *contender) contend(t *testing.T, enough <-chan struct{}, begin func() *process) {
	for {
		p := begin()
		c.mu.Lock()
		c.now = p
		c.mu.Unlock()
		ended := make(chan struct{})
		go func() { p.cmd.Wait(); close(ended) }()
		select {
		case <-ended:
			if code := p.cmd.ProcessState.ExitCode(); !slices.Contains([]int{-1, exitLost, exitCoordd, 137}, code) {
				t.Errorf("a wrapper: got exit code %d: %s", code, p.output)
			}
		case <-enough:
			p.cmd.Process.Signal(syscall.SIGCONT)
			p.cmd.Process.Signal(syscall.SIGKILL)
			<-ended
			return
		}
	}
}

// faults are what happens to those who want the lock, and to the database.
type faults struct {
	t       *testing.T
	r       *rand.Rand
	ttl     time.Duration
	server  *dbtest.Server
	daemons []*server
	holders func() []int // numbers of the wrappers, the holder's first
	counts  map[string]int
}

// one injects one fault, and takes it back. It never hits a wrapper and its supervisor at once.
func (f *faults) one() {
	wrapper := f.holders()[0]
	if f.r.IntN(4) == 0 {
		all := f.holders()
		wrapper = all[f.r.IntN(len(all))]
	}
	victim := map[string]int{"wrapper": wrapper}
	for _, supervisor := range childrenOf(wrapper) {
		victim["supervisor"] = supervisor
		for _, worker := range childrenOf(supervisor) {
			victim["command"] = worker
		}
	}
	kinds := []string{"database", "wrapper", "supervisor", "command", "killed wrapper", "killed supervisor", "killed command"}
	var daemon *server
	if len(f.daemons) > 0 {
		kinds = append(kinds, "daemon", "daemon", "killed daemon")
		daemon = f.daemons[f.r.IntN(len(f.daemons))]
		victim["daemon"] = daemon.cmd.Process.Pid
	}
	lasts := f.ttl/4 + time.Duration(f.r.Int64N(int64(2*f.ttl)))
	if worker, works := victim["command"]; works && f.r.IntN(3) == 0 {
		f.count("frozen command beside")
		f.signal(worker, syscall.SIGSTOP)
		defer f.signal(worker, syscall.SIGCONT)
	}
	kind := kinds[f.r.IntN(len(kinds))]
	who, dies := strings.CutPrefix(kind, "killed ")
	pid, there := victim[who]
	switch {
	case who == "database":
		f.server.Pause()
		time.Sleep(lasts)
		f.server.Resume()
	case !there:
		return // it waits, and has no supervisor yet
	case !dies:
		f.signal(pid, syscall.SIGSTOP)
		time.Sleep(lasts)
		f.signal(pid, syscall.SIGCONT)
	case who == "daemon":
		f.signal(pid, syscall.SIGKILL)
		daemon.cmd.Wait()
		daemon.begin(f.t)
	default:
		f.signal(pid, syscall.SIGKILL)
	}
	f.count(kind)
	f.t.Logf("%s, for %v", kind, lasts)
}

func (f *faults) count(kind string)                  { f.counts[kind]++ }
func (f *faults) signal(pid int, sig syscall.Signal) { _ = syscall.Kill(pid, sig) } // it may have ended

// awaitWork waits until somebody holds the lock, and his workers run.
func awaitWork(t *testing.T, holders func() []int, newest func() ran) {
	t.Helper()
	dbtest.Eventually(t, "somebody who holds the lock", func() bool {
		all := holders()
		return len(all) > 0 && len(childrenOf(all[0])) > 0
	})
	before := newest().last
	dbtest.Eventually(t, "workers that run", func() bool { return newest().last > before })
}

// Three want a lock, for workers that heed no SIGTERM and have others in sessions of their own. Whatever
// is frozen or killed, all workers of one token have ended when the first of the next begins.
func TestACommandIsDeadBeforeAnotherHoldsTheLock(t *testing.T) {
	for name, daemons := range map[string]int{"by sessions": 0, "by daemons": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			injectFaults(t, daemons)
		})
	}
}

func injectFaults(t *testing.T, daemons int) {
	seed := *freezeSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("-freeze-seed %d", seed)
	server := dbtest.StartPostgres(t, dbtest.Extra{})
	dbtest.Migrated(t, server.DSN())
	dir, lasts := t.TempDir(), dbtest.Stretch(3*time.Second)
	f := &faults{t: t, r: rand.New(rand.NewPCG(seed, 1)), ttl: lasts, server: server, counts: map[string]int{}}
	for i := range daemons {
		f.daemons = append(f.daemons, startServer(t, server.DSN(), fmt.Sprint("app-", i), "--ttl", lasts.String()))
	}
	var contenders [3]contender
	var loops sync.WaitGroup
	enough := make(chan struct{})
	end := sync.OnceFunc(func() { close(enough); loops.Wait() })
	defer end()
	for i := range contenders {
		by := []string{"--dsn", server.DSN()}
		if daemons > 0 {
			by = []string{"--addr", f.daemons[i%daemons].address}
		}
		loops.Go(func() {
			contenders[i].contend(t, enough, func() *process { return startLock(t, dir, append(by, "--ttl", lasts.String())...) })
		})
	}
	newest := func() ran {
		all := work(t, dir)
		if len(all) == 0 {
			return ran{}
		}
		return all[len(all)-1]
	}
	f.holders = func() (pids []int) {
		for i := range contenders {
			if w := contenders[i].wrapper(); w != nil {
				pids = append(pids, w.cmd.Process.Pid)
			}
		}
		slices.SortStableFunc(pids, func(a, b int) int { return len(childrenOf(b)) - len(childrenOf(a)) })
		return pids
	}
	for range *freezes {
		awaitWork(t, f.holders, newest)
		f.one()
	}
	awaitWork(t, f.holders, newest)
	end()
	all := work(t, dir)
	for _, found := range overlaps(all) {
		t.Error(found)
	}
	t.Logf("%d faults: %v; %d took the lock", *freezes, f.counts, len(all))
	if len(f.counts) < 3 || len(all) <= *freezes/4 {
		t.Errorf("got faults %v and %d who took the lock, want more for this to say anything", f.counts, len(all))
	}
}

// startLock starts a wrapper with workers that heed no SIGTERM.
func startLock(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, "", append(append([]string{"lock", "l", "--grace", "200ms"}, args...), "--", exe, "be-worker", dir, "2")...)
}

func TestWhatCoorddWasStartedToIgnoreItsCommandIgnoresToo(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dsn := dbtest.SQLiteFile(t)
	dbtest.Migrated(t, dsn)
	cmd := exec.Command("sh", "-c", `trap "" INT HUP; exec "$0" lock x --dsn "$1" -- sh -c 'kill -INT $$; kill -HUP $$; echo lives'`, exe, dsn)
	cmd.Env = append(os.Environ(), beCoordd+"=1")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "lives\n" {
		t.Fatalf("got %q and %v, want it to live", out, err)
	}
}

// A wrapper that is killed leaves the lock free as soon as its command has ended, and not sooner, though a daemon would hold it for a
// minute; and so does one that has no command, or waits.
func TestAKilledWrapperFreesWhatADaemonHolds(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		daemon := startServer(t, dsn, "app-1", "--ttl", "15s")
		long := []string{"--addr", daemon.address, "--ttl", "1m"}
		holds := func(p *process) func() bool {
			return func() bool { return printedTerm.MatchString(p.output.String()) }
		}
		bare := start(t, "", append([]string{"lock", "l"}, long...)...)
		dbtest.Eventually(t, "one who holds it", holds(bare))
		dir := t.TempDir()
		waits := start(t, "", append([]string{"lock", "l"}, long...)...)
		dbtest.Eventually(t, "one who waits", func() bool { return waiting(t, daemon) == 1 })
		worker := startLock(t, dir, append(long, "--grace", "1s")...)
		dbtest.Eventually(t, "two who wait", func() bool { return waiting(t, daemon) == 2 })
		startLock(t, dir, long...)
		dbtest.Eventually(t, "three who wait", func() bool { return waiting(t, daemon) == 3 })

		began := time.Now()
		waits.signal(t, syscall.SIGKILL)
		dbtest.Eventually(t, "one less who waits", func() bool { return waiting(t, daemon) == 2 })
		bare.signal(t, syscall.SIGKILL)
		dbtest.Eventually(t, "workers", func() bool { return len(work(t, dir)) == 1 })
		worker.signal(t, syscall.SIGKILL)
		killed := time.Now()
		dbtest.Eventually(t, "the next workers", func() bool { return len(work(t, dir)) == 2 })
		t.Logf("from the kill of a wrapper to the next one's command: %v, of which the command had a second for its end", time.Since(killed))
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("after %v: the next workers; want them long before the minute is over", took)
		}
		for _, found := range overlaps(work(t, dir)) {
			t.Error(found)
		}
	})
}

// waiting is how many wait for the lock l.
func waiting(t *testing.T, daemon *server) int {
	t.Helper()
	var l httpapi.Lock
	if _, body := daemon.get(t, "/v1/locks/l"); json.Unmarshal([]byte(body), &l) != nil {
		return -1
	}
	return len(l.Waiters)
}

// A daemon that has TLS and tokens holds no less.
func TestALockByADaemonWithTLSAndTokens(t *testing.T) {
	t.Parallel()
	dsn, dir := dbtest.SQLiteFile(t), t.TempDir()
	dbtest.Migrated(t, dsn)
	file := func(name string) string { return filepath.Join(dir, name) }
	s := &server{name: "app-1", address: freeAddress(t), tls: certificate(t, file("crt"), file("key"))}
	write(t, file("web.yml"), "tls_server_config: {cert_file: crt, key_file: key}")
	lines := ""
	for _, role := range []string{"viewer", "operator"} {
		_, line, token := run(t, "token", "a "+role, role)
		write(t, file(role), token)
		lines += line
	}
	write(t, file("tokens"), lines)
	s.start(t, dsn, "--web-config", file("web.yml"), "--tokens", file("tokens"))
	to := func(role string) []string {
		return []string{"--addr", "https://" + s.address, "--ca-file", file("crt"), "--token-file", file(role), "--ttl", "1m"}
	}
	if code, _, stderr := run(t, append(to("viewer"), "lock", "l")...); code != exitCoordd || !strings.Contains(stderr, "another role") {
		t.Errorf("a viewer: got exit code %d and %q", code, stderr)
	}
	workers := t.TempDir()
	first := startLock(t, workers, append(to("operator"), "--grace", "1s")...)
	dbtest.Eventually(t, "workers", func() bool { return len(work(t, workers)) == 1 })
	time.Sleep(dbtest.Stretch(*ttl)) // one answer is good for no longer, so from now on it is held by renewals
	first.signal(t, syscall.SIGKILL)
	began := time.Now()
	startLock(t, workers, to("operator")...)
	dbtest.Eventually(t, "the next workers", func() bool { return len(work(t, workers)) == 2 })
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("after %v: the next workers; want them long before the minute is over", took)
	}
	for _, found := range overlaps(work(t, workers)) {
		t.Error(found)
	}
}

// A daemon that freezes renews nothing: the command ends before another can hold the lock, and the wrapper says that it was lost.
func TestACommandEndsWhenItsDaemonFreezes(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		dir := t.TempDir()
		frozen, other := startServer(t, dsn, "app-1"), startServer(t, dsn, "app-2")
		first := startLock(t, dir, "--addr", frozen.address)
		dbtest.Eventually(t, "workers", func() bool { return len(work(t, dir)) == 1 })
		startLock(t, dir, "--addr", other.address)
		dbtest.Eventually(t, "one who waits", func() bool { return waiting(t, other) == 1 })
		frozen.signal(t, syscall.SIGSTOP)
		dbtest.Eventually(t, "the next workers", func() bool { return len(work(t, dir)) == 2 })
		for _, found := range overlaps(work(t, dir)) {
			t.Error(found)
		}
		all := work(t, dir)
		t.Logf("the first workers ended %v before the next ones began", all[1].first-all[0].last)
		if code := first.exit(t); code != exitLost {
			t.Errorf("got exit code %d, want %d", code, exitLost)
		}
		frozen.signal(t, syscall.SIGCONT)
		dbtest.Eventually(t, "who was frozen is a member again", func() bool { return frozen.status(t, "/role/member") == http.StatusOK })
	})
}

// A daemon that ends says so to those for whom it holds: they end their work, give it back, and it has left at once.
func TestADaemonThatEndsTellsItsClients(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		daemon := startServer(t, dsn, "app-1")
		bare := start(t, "", "lock", "l", "--addr", daemon.address)
		dbtest.Eventually(t, "one who holds it", func() bool { return printedTerm.MatchString(bare.output.String()) })
		daemon.signal(t, syscall.SIGTERM)
		if code := bare.exit(t); code != exitLost {
			t.Errorf("got exit code %d, want %d", code, exitLost)
		}
		if code := daemon.exit(t); code != exitOK {
			t.Errorf("the daemon: got exit code %d, want %d", code, exitOK)
		}
		if got := bare.output.String(); !strings.Contains(got, "lost: ") || strings.Contains(got, "in time") {
			t.Errorf("got %q, want it to have been told", got)
		}
	})
}
