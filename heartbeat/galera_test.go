package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

// A cluster needs two seconds to give up a node, and lets nobody commit meanwhile. Who beats
// twice a second has five left then.
const (
	galeraTTL     = 8 * time.Second
	galeraBeat    = galeraTTL / 16
	galeraTimeout = galeraTTL / 4
)

// M1, M4, E1, E2 on three nodes, each used by a member, a writer and a watcher: each node in
// turn is frozen until the others have gone on without it and its member is dead, and then
// killed and started again.
func TestSessionsAndEventsOutliveEveryNodeOfACluster(t *testing.T) {
	t.Parallel()
	nodes := dbtest.StartGalera(t)
	u := useGalera(t, nodes)
	for i, node := range nodes {
		mine, next := u[i], u[(i+1)%len(u)]
		others := slices.Delete(slices.Clone(nodes[:]), i, i+1)
		u.stayBut(t, mine, "frozen", func() {
			frozen := mine.session()
			node.Pause()
			dbtest.AwaitCluster(t, 2, others...)
			dbtest.Eventually(t, "the member of the frozen node dead", func() bool { return next.state(frozen.ID()) == Dead })
			node.Resume()
			dbtest.AwaitCluster(t, 3, nodes[:]...)
			dbtest.Eventually(t, "a new incarnation of it", func() bool { return mine.session() != frozen })
		})
		u.stayBut(t, mine, "killed", func() {
			node.Kill()
			dbtest.AwaitCluster(t, 2, others...)
			if err := node.Start(); err != nil {
				t.Fatal(err)
			}
			dbtest.AwaitCluster(t, 3, nodes[:]...)
		})
	}
	u.finish(t)
}

// galeraUsers are one on each node.
type galeraUsers [3]*galeraUser

// galeraUser is a process that uses one node: it is a member, writes, watches, and looks at how
// members fare.
type galeraUser struct {
	name string
	db   *coordd.DB
	seen []events.Event // by its watcher

	stop                          context.CancelFunc // what works
	working, watching, witnessing sync.WaitGroup

	mu       sync.Mutex
	sessions []*Session
	states   map[string]State // of members, as this node shows them
	outcomes map[string]error // of commits, by the subject of their event
	commits  int              // of them
}

func useGalera(t *testing.T, nodes [3]*dbtest.Server) (u galeraUsers) {
	t.Helper()
	for i, node := range nodes {
		// A node has done this when it has done all that came before it on others.
		if _, err := dbtest.Open(t, node.DSN()).Pool().ExecContext(t.Context(), `create database if not exists coordd`); err != nil {
			t.Fatal(err)
		}
		open := dbtest.Open
		if i == 0 {
			open = dbtest.Migrated
		}
		u[i] = &galeraUser{name: fmt.Sprint("app-", i), db: open(t, node.DSN()+"coordd"), outcomes: map[string]error{}}
	}
	for _, m := range u {
		ctx, cancel := context.WithCancel(t.Context())
		work, stop := context.WithCancel(ctx)
		m.stop = stop
		t.Cleanup(func() {
			cancel()
			m.working.Wait()
			m.watching.Wait()
			m.witnessing.Wait()
		})
		log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("node_of", m.name)
		m.working.Go(func() {
			cfg := Config{Name: m.name, TTL: galeraTTL, Beat: galeraBeat, Timeout: galeraTimeout, Logger: log}
			if err := Run(work, m.db, cfg, m.work); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		})
		m.working.Go(func() { m.write(work) })
		m.watching.Go(func() { m.watch(ctx, t, log) })
		m.witnessing.Go(func() { m.witness(ctx, t, u) })
	}
	for _, m := range u {
		dbtest.Eventually(t, m.name+" a member", func() bool { return m.session() != nil })
	}
	return u
}

// work is what the member does: it is there.
func (m *galeraUser) work(ctx context.Context, s *Session) error {
	m.mu.Lock()
	m.sessions = append(m.sessions, s)
	m.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

// session is the member's latest incarnation.
func (m *galeraUser) session() *Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.sessions) == 0 {
		return nil
	}
	return m.sessions[len(m.sessions)-1]
}

// write commits some dozens of events a second until ctx ends, and keeps what became of each.
func (m *galeraUser) write(ctx context.Context) {
	for i := 0; wait(ctx, 20*time.Millisecond, nil); i++ {
		subject := fmt.Sprint(m.name, "/", i)
		err := m.append(subject)
		m.mu.Lock()
		m.outcomes[subject] = err
		if err == nil {
			m.commits++
		}
		m.mu.Unlock()
	}
}

func (m *galeraUser) append(subject string) error {
	ctx, cancel := context.WithTimeout(context.Background(), galeraTimeout)
	defer cancel()
	return m.db.Tx(ctx, func(tx coordd.Queries) error {
		return journal.Append(ctx, tx, journal.Event{Topic: "galera", Subject: subject, Action: "happened", Data: "{}"})
	})
}

const galeraLast = "the last"

// watch follows the log from its beginning to the last event.
func (m *galeraUser) watch(ctx context.Context, t *testing.T, log *slog.Logger) {
	cfg := events.Config{Poll: 100 * time.Millisecond, Timeout: galeraTimeout, Logger: log}
	for e, err := range cfg.Watch(ctx, m.db, 0) {
		if err != nil {
			t.Errorf("the watcher on the node of %s, after %d events: %v", m.name, len(m.seen), err)
			return
		}
		if m.seen = append(m.seen, e); e.Subject == galeraLast {
			return
		}
	}
}

// witness holds, until ctx ends, that on this node nobody is forgotten or lives after an end, and
// that nobody whose end it shows takes himself for valid.
func (m *galeraUser) witness(ctx context.Context, t *testing.T, u galeraUsers) {
	for before := map[string]State{}; wait(ctx, 20*time.Millisecond, nil); {
		bounded, cancel := context.WithTimeout(ctx, galeraTimeout)
		members, err := Members(bounded, m.db)
		cancel()
		if err != nil {
			continue // the node is away
		}
		now := map[string]State{}
		for _, x := range members {
			now[x.ID] = x.State
			if s := u.incarnations()[x.ID]; x.State.Ended() && s != nil && s.Valid() {
				t.Errorf("on the node of %s, %s %s is %s, and takes itself for valid", m.name, x.Name, x.ID, x.State)
			}
		}
		for id, was := range before {
			if is := now[id]; is == "" || was.Ended() && is != was {
				t.Errorf("on the node of %s, %s is %q after it was %s", m.name, id, is, was)
			}
		}
		before = now
		m.mu.Lock()
		m.states = now
		m.mu.Unlock()
	}
}

// state is a member's, as this node shows it.
func (m *galeraUser) state(id string) State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[id]
}

// incarnations are all that there have been, by id.
func (u galeraUsers) incarnations() map[string]*Session {
	all := map[string]*Session{}
	for _, m := range u {
		m.mu.Lock()
		for _, s := range m.sessions {
			all[s.ID()] = s
		}
		m.mu.Unlock()
	}
	return all
}

// stayBut holds that a fault of one node costs nobody else his session, though all must wait until
// the cluster goes on without it, and that everybody goes on afterwards.
func (u galeraUsers) stayBut(t *testing.T, faulty *galeraUser, what string, fault func()) {
	t.Helper()
	others := map[*galeraUser]*Session{}
	for _, m := range u {
		if m != faulty {
			others[m] = m.session()
		}
	}
	least := galeraTTL
	var sampling sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	sampling.Go(func() {
		for wait(ctx, 5*time.Millisecond, nil) {
			for _, s := range others {
				least = min(least, s.Stats().Remaining)
			}
		}
	})
	began := time.Now()
	func() {
		defer sampling.Wait()
		defer cancel()
		fault()
	}()
	t.Logf("the node of %s was %s and is back after %v; others had %v left of %v", faulty.name, what, time.Since(began), least, right(galeraTTL))
	for _, m := range u {
		commits := func() int {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.commits
		}
		before := commits()
		dbtest.Eventually(t, m.name+" connected, and a commit of it", func() bool { return m.session().Valid() && commits() > before })
		if s := others[m]; s != nil && (s != m.session() || s.Err() != nil) {
			t.Errorf("%s has lost its session: %v", m.name, s.Err())
		}
	}
}

// finish has everybody end in order, and compares the log with what they did.
func (u galeraUsers) finish(t *testing.T) {
	t.Helper()
	for _, m := range u {
		m.stop()
	}
	for _, m := range u {
		m.working.Wait()
	}
	if err := u[0].append(galeraLast); err != nil {
		t.Fatal(err)
	}
	for _, m := range u {
		all := make(chan struct{})
		go func() {
			defer close(all)
			m.watching.Wait()
		}()
		within(t, all, "the last event, seen by "+m.name)
	}
	log := u[0].seen
	times := map[string]int{}      // that an event of a writer is in the log
	fates := map[string][]string{} // of members, by id
	for i, e := range log {
		if e.Revision != int64(i+1) {
			t.Fatalf("event %d: got revision %d, want %d", i, e.Revision, i+1)
		}
		if e.Topic == Topic {
			fates[e.MemberID] = append(fates[e.MemberID], e.Action)
		} else {
			times[e.Subject]++
		}
	}
	for _, m := range u {
		if !slices.Equal(m.seen, log) {
			t.Errorf("the watchers of %s and %s: got %d and %d events, want the same", m.name, u[0].name, len(m.seen), len(log))
		}
		m.checkCommits(t, times)
	}
	checkFates(t, u.incarnations(), fates)
}

// checkCommits holds that what was committed is in the log once, and what was not is not there.
func (m *galeraUser) checkCommits(t *testing.T, times map[string]int) {
	t.Helper()
	var unknown, refused int
	for subject, err := range m.outcomes {
		n, known := times[subject], new(coordd.Error)
		switch {
		case err == nil:
			if n != 1 {
				t.Errorf("%s was committed: got it %d times, want once", subject, n)
			}
		case errors.Is(err, coordd.ErrUnknownOutcome):
			unknown++
			if n > 1 {
				t.Errorf("%s may have been committed: got it %d times, want once at most: %v", subject, n, err)
			}
		default:
			refused++
			if n != 0 {
				t.Errorf("%s was not committed: got it %d times, want none: %v", subject, n, err)
			}
			if !errors.As(err, &known) {
				t.Errorf("%s: got %v, want an error that a fault of the node explains", subject, err)
			}
		}
	}
	t.Logf("%s: %d commits, %d of unknown outcome, %d refused", m.name, m.commits, unknown, refused)
	if m.commits < 100 || unknown+refused == 0 {
		t.Errorf("%s: got %d commits and %d failures, want more", m.name, m.commits, unknown+refused)
	}
}

// checkFates holds that each incarnation joined once and ended once, in the way that it knows.
func checkFates(t *testing.T, all map[string]*Session, fates map[string][]string) {
	t.Helper()
	died := 0
	for id, got := range fates {
		want := []string{"joined", "died"} // also of one that never knew that it had joined
		if s := all[id]; s != nil && errors.Is(s.Err(), ErrLeft) {
			want[1] = "left"
		} else {
			died++
		}
		if !slices.Equal(got, want) {
			t.Errorf("member %s: got %v, want %v", id, got, want)
		}
		delete(all, id)
	}
	if len(all) > 0 || died < 3 {
		t.Errorf("got %d deaths of %d incarnations, and %d without an event; want 3 deaths or more, and none", died, len(fates), len(all))
	}
	t.Logf("%d incarnations, %d deaths", len(fates), died)
}
