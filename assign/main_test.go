package assign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestMain(m *testing.M) {
	if described := os.Getenv(beMember); described != "" {
		memberMain(described)
	}
	dbtest.Main(m)
}

// shortTTL makes real-time tests short, and leaves a loaded machine some room.
var shortTTL = dbtest.Stretch(2 * time.Second)

// board notes who runs which job, and finds two that run the same one, and epochs that fall.
type board struct {
	mu      sync.Mutex
	runs    map[string]string // job: member
	jobs    map[string]Job
	epochs  map[string]int64
	starts  int
	moves   map[string]int
	mistake string
}

func newBoard() *board {
	return &board{runs: map[string]string{}, jobs: map[string]Job{}, epochs: map[string]int64{}, moves: map[string]int{}}
}

func (b *board) begin(member string, j Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.starts++
	b.moves[j.Key]++
	if other, runs := b.runs[j.Key]; runs {
		b.mistake = fmt.Sprintf("%s runs at %s and at %s", j.Key, other, member)
	}
	if j.Epoch() < b.epochs[j.Key] {
		b.mistake = fmt.Sprintf("%s runs in epoch %d after %d", j.Key, j.Epoch(), b.epochs[j.Key])
	}
	b.runs[j.Key], b.jobs[j.Key], b.epochs[j.Key] = member, j, j.Epoch()
}

func (b *board) end(member string, j Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.runs[j.Key] == member { // else another has begun, and that is told
		delete(b.runs, j.Key)
	}
}

// shares are how many jobs each runs, in order.
func (b *board) shares() (shares []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	per := map[string]int{}
	for _, member := range b.runs {
		per[member]++
	}
	for _, n := range per {
		shares = append(shares, n)
	}
	slices.Sort(shares)
	return shares
}

// check fails the test if something has gone wrong.
func (b *board) check(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mistake != "" {
		t.Fatal(b.mistake)
	}
}

// serving is a member that serves a group until it is stopped.
type serving struct {
	s     *heartbeat.Session
	stop  func() error // ends its context
	ended func() error // waits for its end
}

// lasting is a member that stays for longer than a busy machine stands still, and beats as if its TTL were short.
func lasting(name string) heartbeat.Config {
	return heartbeat.Config{Name: name, TTL: 15 * time.Second, Beat: shortTTL / 3}
}

// joined joins, and leaves with the test.
func joined(t *testing.T, db *coordd.DB, name string) *heartbeat.Session {
	t.Helper()
	return joinedAs(t, db, lasting(name))
}

func joinedAs(t *testing.T, db *coordd.DB, as heartbeat.Config) *heartbeat.Session {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), db, as)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) })
	return s
}

// brief is a member whose session ends soon without the database.
func brief(name string) heartbeat.Config { return heartbeat.Config{Name: name, TTL: shortTTL} }

// serves joins and serves a group; its work waits for its end.
func serves(t *testing.T, db *coordd.DB, b *board, name string, cfg Config) serving {
	t.Helper()
	return servesAs(t, db, b, lasting(name), cfg)
}

func servesAs(t *testing.T, db *coordd.DB, b *board, as heartbeat.Config, cfg Config) serving {
	t.Helper()
	return serving{s: joinedAs(t, db, as)}.again(t, b, as.Name, cfg)
}

// again serves the group in the same session.
func (old serving) again(t *testing.T, b *board, name string, cfg Config) serving {
	t.Helper()
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil)).With("member", name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, old.s, cfg, func(ctx context.Context, j Job) error {
			b.begin(name, j)
			defer b.end(name, j)
			<-ctx.Done()
			return nil
		})
	}()
	ended := sync.OnceValue(func() error { return <-done })
	stop := func() error { cancel(); return ended() }
	t.Cleanup(func() { stop() })
	return serving{old.s, stop, ended}
}

// grouped makes a group with jobs.
func grouped(t *testing.T, db *coordd.DB, g Group, jobs int) {
	t.Helper()
	if err := Define(t.Context(), db, g); err != nil {
		t.Fatal(err)
	}
	var specs []Spec
	for i := range jobs {
		specs = append(specs, Spec{Key: fmt.Sprint("job-", i)})
	}
	added, err := Add(t.Context(), db, g.Name, specs...)
	if err != nil || added != jobs {
		t.Fatalf("added %d jobs, %v; want %d", added, err, jobs)
	}
}

// quick is a group that waits for nothing.
var quick = Group{Name: "g", Slots: 120, Options: Options{Gather: 10 * time.Millisecond, MoveCap: 100, RestartGrace: -1}}

// settles waits until the jobs are shared like this.
func (b *board) settles(t *testing.T, want ...int) {
	t.Helper()
	dbtest.Eventually(t, fmt.Sprintf("jobs shared as %v", want), func() bool {
		b.check(t)
		return slices.Equal(b.shares(), want)
	})
}

func TestJobsAreSharedOutAndMoveWithTheirServers(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		b := newBoard()
		grouped(t, db, quick, 90)
		first := serves(t, db, b, "a", Config{Group: "g"})
		b.settles(t, 90)
		serves(t, db, b, "b", Config{Group: "g"})
		b.settles(t, 45, 45)
		third := serves(t, db, b, "c", Config{Group: "g"})
		b.settles(t, 30, 30, 30)
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		b.settles(t, 45, 45)
		if err := third.s.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := third.ended(); !errors.Is(err, heartbeat.ErrLeft) {
			t.Errorf("of a session that was left: got %v, want ErrLeft", err)
		}
		b.settles(t, 90)
		if n := b.starts; n > 90+45+30+30+45 {
			t.Errorf("got %d starts, want 240 at most", n)
		}
	})
}
