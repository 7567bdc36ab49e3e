package dbtest

import (
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd/migrations"
)

// Sim is a world in a synctest bubble: one database, real SQL on SQLite in memory, and some
// hosts that reach it over connections that go wrong. What goes wrong, and when, is drawn from
// a seed before anything happens, and so is what befalls the nth statement of one wording on
// one host. What the seed does not fix is the order in which goroutines run that are ready at
// the same instant, and the jitter of retries: a replay meets the same faults at the same
// times, with statements that may be some milliseconds earlier or later. What a rare
// interleaving brought up may take several replays to come again.
//
// Its transactions are serializable, and reads wait for writers: what a database does at weaker
// levels is for the tests that run on the real ones.
type Sim struct {
	Seed  uint64
	Hosts []*Host

	// Marked is a statement whose answers are what hosts decide on. Every Commit tells when its
	// host had the latest of them.
	Marked string

	// OnCommit is called after each commit, before anything else can be committed. It must not
	// wait for anything.
	OnCommit func(Commit)

	// OnStatement is called when a host begins a statement. It must not wait for anything.
	OnStatement func(by *Host, stmt string, args []driver.NamedValue)

	plan    []Episode
	quiet   time.Duration // from then on nothing goes wrong
	began   time.Time
	server  *simServer
	zombies sync.WaitGroup

	mu        sync.Mutex
	faults    map[Fault]int
	statement int
	trace     []note
	verdict   string
}

// Commit is one that has changed something.
type Commit struct {
	By     *Host
	Marked time.Duration // when By had its latest answer to the marked statement
	Query  Query
}

// Query reads what the server has, as nobody's statement. It has no arguments but numbers.
type Query func(stmt string, args ...int64) [][]any

// NewSim makes a world; scales are the hosts' typical times, such as TTLs, by which their
// faults are measured. Nothing goes wrong after quiet. It must be called in a bubble, and
// Close before its end.
func NewSim(t *testing.T, seed uint64, quiet time.Duration, scales []time.Duration) *Sim {
	t.Helper()
	script, err := migrations.Script("sqlite")
	if err != nil {
		t.Fatal(err)
	}
	server, err := newSimServer(script)
	if err != nil {
		t.Fatal(err)
	}
	s := &Sim{Seed: seed, quiet: quiet, began: time.Now(), server: server, faults: map[Fault]int{}}
	r := s.Rand("plan")
	for i, scale := range scales {
		s.Hosts = append(s.Hosts, newHost(s, fmt.Sprintf("host%d", i), scale, r))
	}
	s.plan = drawPlan(r, quiet, s.Hosts)
	return s
}

// Close ends the world, when all that its hosts do has ended.
func (s *Sim) Close() {
	s.zombies.Wait()
	for _, h := range s.Hosts {
		h.close()
	}
	synctest.Wait() // database/sql rolls back behind its caller's back
	s.server.close()
}

// Rand is a source of the seed's own for one purpose.
func (s *Sim) Rand(purpose string) *rand.Rand {
	return rand.New(rand.NewPCG(s.Seed, hash(purpose)))
}

// Since is the time since the world began, by no host's clock.
func (s *Sim) Since() time.Duration { return time.Since(s.began) }

// traced is how many lines of what happened are told when something has gone wrong.
const traced = 80

// Note adds a line to what has happened. Its arguments must not change any more.
func (s *Sim) Note(who, what string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(who, what, args...)
}

func (s *Sim) note(who, what string, args ...any) {
	if s.verdict != "" {
		return // what happened after it explains nothing
	}
	if len(s.trace) >= 2*traced {
		s.trace = append(s.trace[:0], s.trace[traced:]...)
	}
	s.trace = append(s.trace, note{s.Since(), who, what, args})
}

// note is a line of the trace. It is put into words only when somebody reads it.
type note struct {
	at        time.Duration
	who, what string
	args      []any
}

func (n note) String() string {
	return fmt.Sprintf("%9.3f  %-7s %s", n.at.Seconds(), n.who, fmt.Sprintf(n.what, n.args...))
}

// Violated records that a promise was broken. The first one counts.
func (s *Sim) Violated(what string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verdict == "" {
		s.note("!", what, args...)
		s.verdict = fmt.Sprintf(what, args...)
	}
}

// Verdict is what was violated, or empty.
func (s *Sim) Verdict() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdict
}

// Story is what was to go wrong, and the last that happened.
func (s *Sim) Story() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "%s: %v, its clock is %.2f %% fast\n", h.Name, h.scale, h.skew*100)
	}
	for _, e := range s.plan {
		fmt.Fprintf(&b, "%v\n", e)
	}
	for _, line := range s.trace[max(0, len(s.trace)-traced):] {
		fmt.Fprintln(&b, line)
	}
	return b.String()
}

// Faults is how many statements each fault has hit, and how many there were in all.
func (s *Sim) Faults() (faults map[Fault]int, statements int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults, s.statement
}

// hit counts a fault that befell a statement.
func (s *Sim) hit(h *Host, f Fault, stmt string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[f]++
	s.note(h.Name, "  %s: %s", f, short(stmt))
}

// short is a statement of which enough is told to know it by.
type short string

func (s short) String() string {
	stmt := strings.Join(strings.Fields(string(s)), " ")
	return stmt[:min(len(stmt), 60)]
}
