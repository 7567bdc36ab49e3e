package main

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
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

	"golang.org/x/sys/unix"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/internal/dbtest"
)

var sidecars = flag.Duration("sidecars", 15*time.Second, "for how long TestPythonLooksAfterJobs kills and freezes")

// recorder is docs/clients/jobs.py, and tells when it begins and ends a job, and until when it may, by
// a clock that all processes of a machine share.
const recorder = `
import os, sys, time
sys.path.insert(0, sys.argv[3])
import jobs
now = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
def tell(*words): # at one stroke, as two threads do
    os.write(1, (" ".join(map(str, words)) + "\n").encode())
class Recorder(jobs.Jobs):
    def renew(self):
        sent = now()
        super().renew()
        tell("valid", sent, self.valid_until)
recorder = Recorder(sys.argv[1], sys.argv[2],
    begin=lambda job: tell("begin", job["key"], now()), end=lambda key: tell("end", key, now()))
while True:
    try:
        recorder.serve()
    except (OSError, jobs.http.client.HTTPException) as why:
        tell("out", repr(why))
    time.sleep(0.2)
`

// span is a time from and to which something was so, in seconds.
type span struct{ from, to float64 }

// host is a daemon with its client, as one machine would have them.
type host struct {
	t               *testing.T
	dsn, name, addr string
	script          string // the client's, in Python
	daemon, client  *process
	over            chan struct{} // closed when the client has ended
	ledger          *ledger
	generation      int
}

// ledger is what the clients have told.
type ledger struct {
	mu      sync.Mutex
	clients map[string]*told
}

// told is what one client has told.
type told struct {
	valid []span
	jobs  map[string][]span // to is 0 while it runs
	ended float64           // when it was killed; 0: it was not
}

func bootTime() float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return float64(ts.Nano()) / 1e9
}

func (h *host) startDaemon() {
	h.daemon = start(h.t, h.dsn, "run", "--name", h.name, "--ttl", dbtest.Stretch(*ttl).String(), "--listen", h.addr)
}

// id names the client that runs, or ran last.
func (h *host) id() string { return fmt.Sprint(h.name, " ", h.generation) }

func (h *host) startClient() {
	h.t.Helper()
	h.generation++
	id := h.id()
	lib, err := filepath.Abs("../../docs/clients")
	if err != nil {
		h.t.Fatal(err)
	}
	c := &process{cmd: exec.Command("python3", "-c", h.script, "http://"+h.addr, "g", lib), output: new(output)}
	c.cmd.Stderr = c.output
	c.cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.client = c
	over := make(chan struct{})
	h.over = over
	go func() {
		defer close(over)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			h.ledger.enter(id, lines.Text())
		}
	}()
	h.t.Cleanup(func() {
		c.cmd.Process.Kill()
		<-over
		c.cmd.Wait()
		if h.t.Failed() {
			h.t.Logf("%s: %s", id, c.output)
		}
	})
}

func (l *ledger) of(id string) *told {
	if l.clients[id] == nil {
		l.clients[id] = &told{jobs: map[string][]span{}}
	}
	return l.clients[id]
}

func (l *ledger) enter(id, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, fields := l.of(id), strings.Fields(line)
	number := func(i int) float64 { f, _ := strconv.ParseFloat(fields[i], 64); return f }
	switch fields[0] {
	case "valid":
		c.valid = append(c.valid, span{number(1), number(2)})
	case "begin":
		c.jobs[fields[1]] = append(c.jobs[fields[1]], span{from: number(2)})
	case "end":
		if all := c.jobs[fields[1]]; len(all) > 0 {
			all[len(all)-1].to = number(2)
		}
	}
}

// killed notes that a client has ended.
func (l *ledger) killed(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(id).ended = bootTime()
}

// spans are the times in which each job was looked after: run by somebody who might.
func (l *ledger) spans() map[string][]span {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string][]span{}
	now := bootTime()
	for _, c := range l.clients {
		for job, runs := range c.jobs {
			for _, r := range runs {
				if r.to == 0 {
					r.to = now
				}
				if c.ended > 0 {
					r.to = min(r.to, c.ended)
				}
				for _, v := range merged(c.valid) {
					if from, to := max(r.from, v.from), min(r.to, v.to); from < to {
						all[job] = append(all[job], span{from, to})
					}
				}
			}
		}
	}
	for _, of := range all {
		slices.SortFunc(of, func(a, b span) int { return int(1e6 * (a.from - b.from)) })
	}
	return all
}

// longestGap is the longest time, in seconds, in which nobody looked after a job. That two did fails
// the test.
func (l *ledger) longestGap(t *testing.T) (worst float64) {
	for job, of := range l.spans() {
		for i := 1; i < len(of); i++ {
			gap := of[i].from - of[i-1].to
			if gap < 0 {
				t.Errorf("%s was looked after by two from %f to %f", job, of[i].from, of[i-1].to)
			}
			worst = max(worst, gap)
		}
	}
	return worst
}

// merged joins what overlaps; spans are in their order.
func merged(spans []span) (joined []span) {
	for _, s := range spans {
		if n := len(joined); n > 0 && s.from <= joined[n-1].to {
			joined[n-1].to = max(joined[n-1].to, s.to)
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}

// tell tells what each client has, for whoever looks for what went wrong.
func (l *ledger) tell(t *testing.T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, c := range l.clients {
		running := 0
		for _, runs := range c.jobs {
			if len(runs) > 0 && runs[len(runs)-1].to == 0 {
				running++
			}
		}
		t.Logf("%s runs %d jobs, killed at %f, now %f, valid %v", id, running, c.ended, bootTime(), merged(c.valid))
	}
}

// settled says whether each of so many jobs is looked after just now.
func (l *ledger) settled(jobs int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, now := 0, bootTime()
	for _, c := range l.clients {
		if len(c.valid) == 0 || c.ended > 0 || c.valid[len(c.valid)-1].to < now {
			continue
		}
		for _, runs := range c.jobs {
			if runs[len(runs)-1].to == 0 {
				n++
			}
		}
	}
	return n == jobs
}

// threeHosts have a daemon and a client each.
func threeHosts(t *testing.T, dsn, script string, l *ledger) (hosts []*host) {
	for _, name := range []string{"host-0", "host-1", "host-2"} {
		h := &host{t: t, dsn: dsn, name: name, addr: freeAddress(t), script: script, ledger: l}
		h.startDaemon()
		h.startClient()
		hosts = append(hosts, h)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.tell(t)
		}
	})
	return hosts
}

// Three daemons, each with a client in Python's own library, look after a thousand jobs while both
// are killed and frozen: no job is ever looked after by two, and none for long by nobody.
func TestPythonLooksAfterJobs(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		const jobs = 1000
		db := dbtest.Migrated(t, dsn)
		defineJobs(t, db, jobs)
		l := &ledger{clients: map[string]*told{}}
		hosts := threeHosts(t, dsn, recorder, l)
		settles := func() { dbtest.Eventually(t, "all jobs looked after", func() bool { return l.settled(jobs) }) }
		settles()
		r := rand.New(rand.NewPCG(1, 2))
		rounds := 0
		for end := time.Now().Add(*sidecars); time.Now().Before(end); rounds++ {
			hosts[r.IntN(3)].mishap(rounds%6, time.Duration(r.Int64N(int64(3*time.Second))))
			settles()
		}
		worst := l.longestGap(t)
		t.Logf("%d mishaps; the longest time in which nobody looked after a job: %.1f s", rounds, worst)
		if limit := dbtest.Stretch(20 * time.Second).Seconds(); worst > limit {
			t.Errorf("nobody looked after a job for %.1f s, want %.0f s at most", worst, limit)
		}
	})
}

func defineJobs(t *testing.T, db *coordd.DB, jobs int) {
	t.Helper()
	g := assign.Group{Name: "g", Slots: 120, Options: assign.Options{Gather: 500 * time.Millisecond, MoveCap: 50}}
	if err := assign.Define(t.Context(), db, g); err != nil {
		t.Fatal(err)
	}
	var specs []assign.Spec
	for i := range jobs {
		specs = append(specs, assign.Spec{Key: fmt.Sprint("job-", i)})
	}
	if _, err := assign.Add(t.Context(), db, "g", specs...); err != nil {
		t.Fatal(err)
	}
}

// mishap kills or freezes a daemon or a client, or freezes the client while its daemon ends and, a
// while later, is there again.
func (h *host) mishap(kind int, while time.Duration) {
	h.t.Helper()
	switch kind {
	case 0:
		h.killClient()
		h.startClient()
	case 1:
		h.restartDaemon(syscall.SIGKILL)
	case 2:
		freeze(h.t, h.client)
	case 3:
		freeze(h.t, h.daemon)
	case 4, 5:
		h.client.signal(h.t, syscall.SIGSTOP)
		h.restartDaemon([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[kind-4])
		time.Sleep(while)
		h.client.signal(h.t, syscall.SIGCONT)
	}
}

// killClient kills the client, and notes that it has ended.
func (h *host) killClient() {
	h.t.Helper()
	h.client.signal(h.t, syscall.SIGKILL)
	h.client.cmd.Process.Wait()
	h.ledger.killed(h.id())
}

// restartDaemon ends the daemon by a signal, and starts another in its place.
func (h *host) restartDaemon(by syscall.Signal) {
	h.t.Helper()
	h.daemon.signal(h.t, by)
	h.daemon.exit(h.t)
	h.startDaemon()
}

// freeze stops a process for longer than its right lasts.
func freeze(t *testing.T, p *process) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	time.Sleep(5 * time.Second)
	p.signal(t, syscall.SIGCONT)
}
