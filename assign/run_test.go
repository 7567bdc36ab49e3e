package assign

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestJobsComeAndGo(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx, b := t.Context(), newBoard()
		grouped(t, db, quick, 3)
		serves(t, db, b, "a", Config{Group: "g"})
		b.settles(t, 3)

		if n, err := Add(ctx, db, "g", Spec{Key: "job-0"}, Spec{Key: "more"}); n != 1 || err != nil {
			t.Errorf("one that is there and one more: got %d added, %v; want 1", n, err)
		}
		b.settles(t, 4)
		if err := Remove(ctx, db, "g", "more"); err != nil {
			t.Error(err)
		}
		b.settles(t, 3)
		for range 2 {
			if err := Pause(ctx, db, "g", "job-0"); err != nil {
				t.Error(err)
			}
		}
		b.settles(t, 2)
		if err := Resume(ctx, db, "g", "job-0"); err != nil {
			t.Error(err)
		}
		b.settles(t, 3)
		before := b.began("job-1")
		if err := Update(ctx, db, "g", Spec{Key: "job-1", Payload: "another"}); err != nil {
			t.Error(err)
		}
		dbtest.Eventually(t, "the job with its new payload", func() bool { return b.began("job-1") == before+1 && b.payload("job-1") == "another" })

		tx, err := db.Pool().BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if n, err := AddTx(ctx, db, tx, "g", Spec{Key: "with others"}); n != 1 || err != nil {
			t.Errorf("in a transaction: got %d added, %v; want 1", n, err)
		}
		if err := RemoveTx(ctx, db, tx, "g", "job-2"); err != nil {
			t.Error(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		dbtest.Eventually(t, "what the transaction has added, and not what it has removed", func() bool {
			return b.runsAt("with others") == "a" && b.runsAt("job-2") == ""
		})
		b.check(t)
	})
}

func (b *board) began(key string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.moves[key]
}

func (b *board) payload(key string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.jobs[key].Payload
}

func (b *board) runsAt(key string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.runs[key]
}

func TestWhatCannotBeIsSaid(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		grouped(t, db, quick, 1)
		more := quick
		more.Slots = 121
		for what, want := range map[string]struct {
			err  error
			is   error
			says string
		}{
			"another number of slots": {Define(ctx, db, more), coordd.ErrInvalid, "it has 120 slots and cannot get 121"},
			"an unknown strategy":     {Define(ctx, db, Group{Name: "h", Strategy: "best"}), coordd.ErrInvalid, "consistent-hash"},
			"too many slots":          {Define(ctx, db, Group{Name: "h", Slots: 1 << 20}), coordd.ErrInvalid, "between 1 and 65536"},
			"no group":                {second(Add(ctx, db, "nowhere", Spec{Key: "x"})), coordd.ErrNone, "there is no such group"},
			"a bad key":               {second(Add(ctx, db, "g", Spec{Key: " x"})), coordd.ErrInvalid, "begins or ends with space"},
			"a huge payload":          {second(Add(ctx, db, "g", Spec{Key: "x", Payload: strings.Repeat("x", 1<<17)})), coordd.ErrInvalid, "65536 bytes"},
			"no job to remove":        {Remove(ctx, db, "g", "nothing"), coordd.ErrNone, "there is no such job"},
			"no job to pause":         {Pause(ctx, db, "g", "nothing"), coordd.ErrNone, "there is no such job"},
			"no job to look up":       {second(Lookup(ctx, db, "g", "nothing")), coordd.ErrNone, "there is no such job"},
			"no group to list":        {second(List(ctx, db, "nowhere", "", 10)), coordd.ErrNone, "there is no such group"},
			"no group to drop":        {Drop(ctx, db, "nowhere"), coordd.ErrNone, "there is no such group"},
		} {
			if !errors.Is(want.err, want.is) || !strings.Contains(fmt.Sprint(want.err), want.says) {
				t.Errorf("%s: got %v, want %v that says %q", what, want.err, want.is, want.says)
			}
		}
		b := newBoard()
		s := serves(t, db, b, "a", Config{Group: "g"})
		b.settles(t, 1)
		if err := Run(ctx, s.s, Config{Group: "g"}, nil); !errors.Is(err, coordd.ErrHeld) {
			t.Errorf("served twice by one session: got %v, want ErrHeld", err)
		}
		if err := Run(ctx, s.s, Config{Group: "g", Starts: -1}, nil); !errors.Is(err, coordd.ErrInvalid) {
			t.Errorf("fewer than no starts a second: got %v, want ErrInvalid", err)
		}
		if err := Drop(ctx, db, "g"); !errors.Is(err, coordd.ErrHeld) {
			t.Errorf("while it is served: got %v, want ErrHeld", err)
		}
		before, err := Lookup(ctx, db, "g", "job-0")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if err := Drop(ctx, db, "g"); err != nil {
			t.Error(err)
		}
		if err := Run(ctx, s.s, Config{Group: "g"}, nil); !errors.Is(err, ErrNoGroup) {
			t.Errorf("of a group that was dropped: got %v, want ErrNoGroup", err)
		}
		grouped(t, db, quick, 1)
		if again, err := Lookup(ctx, db, "g", "job-0"); err != nil || again.Owner.Epoch <= before.Owner.Epoch {
			t.Errorf("made again: got epoch %d, %v; want more than %d", again.Owner.Epoch, err, before.Owner.Epoch)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// What serves a group is ended, and begins again in the same session.
func TestAMemberServesTheGroupAgain(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		b := newBoard()
		grouped(t, db, quick, 10)
		first := serves(t, db, b, "a", Config{Group: "g"})
		b.settles(t, 10)
		for range 3 {
			if err := first.stop(); err != nil {
				t.Fatal(err)
			}
			b.settles(t)
			first = first.again(t, b, "a", Config{Group: "g"})
			b.settles(t, 10)
		}
	})
}

// A function that does not end keeps its slot, and is named; nobody else is given the job before.
func TestALateFunctionKeepsItsJob(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		grouped(t, db, quick, 4)
		var log locked
		s := joined(t, db, "late")
		hold, told := make(chan struct{}), make(chan Job, 16)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			cfg := Config{Group: "g", Grace: 10 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))}
			done <- Run(ctx, s, cfg, func(ctx context.Context, j Job) error {
				<-ctx.Done()
				told <- j
				<-hold
				return nil
			})
		}()
		dbtest.Eventually(t, "an owner of all", func() bool {
			info, err := Lookup(t.Context(), db, "g", "job-0")
			return err == nil && info.Owner.MemberID == s.ID()
		})
		b := newBoard()
		serves(t, db, b, "next", Config{Group: "g"})
		late := <-told
		dbtest.Eventually(t, "a warning", func() bool { return strings.Contains(log.String(), "jobs do not end though their context has") })
		info, err := Lookup(t.Context(), db, "g", late.Key)
		if err != nil || info.Owner.MemberID != s.ID() {
			t.Errorf("%s goes to %+v, %v while its function runs", late.Key, info.Owner, err)
		}
		close(hold)
		b.settles(t, 2)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.settles(t, 4)
	})
}

// locked is a log that a test reads while it is written.
type locked struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// A member that beats and does not carry the plan out is condemned, and its jobs go to others.
func TestWhoDoesNotObeyIsCondemned(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		g := quick
		g.Obey, g.Gather = 2*shortTTL, dbtest.Stretch(time.Second) // so that neither has to give the other anything
		grouped(t, db, g, 4)
		s := joined(t, db, "stubborn")
		hold := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- Run(t.Context(), s, Config{Group: "g", NoCandidate: true}, func(ctx context.Context, j Job) error { <-hold; return nil })
		}()
		b := newBoard()
		serves(t, db, b, "next", Config{Group: "g"})
		b.settles(t, 2)
		if err := heartbeat.Drain(t.Context(), db, s.ID()); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		if err := s.Err(); !errors.Is(err, coordd.ErrLost) {
			t.Errorf("who does not obey: got %v, want ErrLost", err)
		}
		b.settles(t, 4)
		close(hold)
		if err := <-done; !errors.Is(err, coordd.ErrLost) {
			t.Errorf("its Run: got %v, want ErrLost", err)
		}
	})
}

// A member whose work does not return after a lapse looks after nothing and lets nobody else: it is condemned too.
func TestWhoseWorkDoesNotReturnAfterALapseIsCondemned(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		shaky, tap := dbtest.OpenTapped(t, dsn)
		g := quick
		g.Obey = 2 * shortTTL
		grouped(t, db, g, 4)
		s := joinedAs(t, shaky, brief("hung"))
		hold, running, done := make(chan struct{}), make(chan Job, 4), make(chan error, 1)
		go func() {
			done <- Run(t.Context(), s, Config{Group: "g"}, func(_ context.Context, j Job) error {
				running <- j
				<-hold
				return nil
			})
		}()
		for range 4 {
			<-running
		}
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrBroken })
		dbtest.Eventually(t, "a lapse", func() bool { return s.Status() == heartbeat.Suspended })
		tap.Disturb(nil)
		<-s.Done()
		if err := s.Err(); !errors.Is(err, coordd.ErrLost) {
			t.Errorf("its session: got %v, want ErrLost", err)
		}
		b := newBoard()
		serves(t, db, b, "next", Config{Group: "g"})
		b.settles(t, 4)
		close(hold)
		if err := <-done; !errors.Is(err, coordd.ErrLost) {
			t.Errorf("its Run: got %v, want ErrLost", err)
		}
	})
}

// A group is not dropped while a function of it runs, though nobody serves it any more: one made anew would run it again.
// The database is told once of each slot that is given back, however long the others take.
func TestAGroupIsNotDroppedUnderAFunction(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		grouped(t, db, quick, 4)
		ctx, stop := context.WithCancel(t.Context())
		hold, running, done := make(chan struct{}), make(chan Job, 4), make(chan error, 1)
		go func() {
			done <- Run(ctx, joined(t, db, "a"), Config{Group: "g"}, func(_ context.Context, j Job) error {
				running <- j
				<-hold
				return nil
			})
		}()
		for range 4 {
			<-running
		}
		stop()
		version := func() (v int64) {
			if err := db.Get(t.Context(), []any{&v}, stmtVersion, "g"); err != nil {
				t.Fatal(err)
			}
			return v
		}
		dbtest.Eventually(t, "a group that nobody serves", func() bool {
			var serving int
			err := db.Get(t.Context(), []any{&serving}, `select count(*) from coordd_group_members`)
			return err == nil && serving == 0
		})
		before := version()
		time.Sleep(2*retryPause + retryPause/2) // in which nothing is to be told
		if after := version(); after != before {
			t.Errorf("nothing has returned, and %d versions of the plan came", after-before)
		}
		if err := Drop(t.Context(), db, "g"); !errors.Is(err, coordd.ErrHeld) {
			t.Errorf("dropped under a function: got %v, want ErrHeld", err)
		}
		close(hold)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := Drop(t.Context(), db, "g"); err != nil {
			t.Error(err)
		}
	})
}

// Who may not serve a group is told so at once, and again each time.
func TestWhoMayNotServeIsToldWhy(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		grouped(t, dbtest.Migrated(t, dsn), quick, 4)
		denied, tap := dbtest.OpenTapped(t, dsn)
		s := joined(t, denied, "a")
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if strings.HasPrefix(stmt, "update coordd_groups") {
				return coordd.ErrForbidden
			}
			return do()
		})
		for range 2 {
			if err := Run(t.Context(), s, Config{Group: "g", NoCandidate: true}, nil); !errors.Is(err, coordd.ErrForbidden) {
				t.Errorf("got %v, want ErrForbidden", err)
			}
		}
	})
}

// Who has many jobs to read looks at the plan meanwhile, however slow the database is.
func TestWhoReadsManyJobsLooksAtThePlan(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		slow, tap := dbtest.OpenTapped(t, dsn)
		g := quick
		g.Slots = 800
		grouped(t, db, g, 1600)
		var reads, most atomic.Int32 // since the latest look
		tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
			switch {
			case strings.HasPrefix(stmt, "select g.plan_version"):
				reads.Store(0)
			case strings.HasPrefix(stmt, "select slot, job_key"):
				most.Store(max(most.Load(), reads.Add(1)))
				if err := dbtest.Pause(ctx, nearPoll); err != nil {
					return err
				}
			}
			return do()
		})
		b := newBoard()
		serves(t, slow, b, "a", Config{Group: "g"})
		b.settles(t, 1600)
		if got := most.Load(); got != 1 {
			t.Errorf("got %d slow statements about jobs without a look at the plan, want 1", got)
		}
	})
}

// A server that restarts under its name within the grace finds its jobs where they were, and
// nobody else's move.
func TestARestartMovesNothing(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		b := newBoard()
		g := quick
		g.RestartGrace = time.Minute
		grouped(t, db, g, 60)
		first := serves(t, db, b, "a", Config{Group: "g"})
		serves(t, db, b, "b", Config{Group: "g"})
		serves(t, db, b, "c", Config{Group: "g"})
		b.settles(t, 20, 20, 20)
		before := b.where()
		if err := first.s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.settles(t, 20, 20)
		if said, err := Preview(t.Context(), db, "g", nil, nil); err != nil || len(said) != 0 {
			t.Errorf("while it restarts: got %v, %v said to move, want nothing", said, err)
		}
		said, err := Preview(t.Context(), db, "g", nil, []string{"a"})
		if err != nil || len(said) == 0 || slices.ContainsFunc(said, func(m Move) bool { return m.From != "" || m.To != "a" }) {
			t.Errorf("as if it were back: got %v, %v; want its slots, from nobody to it", said, err)
		}
		serves(t, db, b, "a", Config{Group: "g"})
		b.settles(t, 20, 20, 20)
		for job, at := range b.where() {
			if before[job] != at {
				t.Errorf("%s was at %s and is at %s", job, before[job], at)
			}
		}
	})
}

func (b *board) where() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	where := map[string]string{}
	for job, at := range b.runs {
		where[job] = at
	}
	return where
}

func TestWhoDrainsOrIsNotSelectedOwnsNothing(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		b := newBoard()
		g := quick
		g.Selector = map[string]string{"zone": "here"}
		grouped(t, db, g, 10)
		labelled := func(name, zone string) serving {
			return servesAs(t, db, b, heartbeat.Config{Name: name, TTL: shortTTL, Labels: map[string]string{"zone": zone}}, Config{Group: "g"})
		}
		first := labelled("a", "here")
		labelled("b", "here")
		labelled("elsewhere", "there")
		b.settles(t, 5, 5)
		if err := heartbeat.Drain(t.Context(), db, first.s.ID()); err != nil {
			t.Fatal(err)
		}
		b.settles(t, 10)
		if err := heartbeat.Undrain(t.Context(), db, first.s.ID()); err != nil {
			t.Fatal(err)
		}
		b.settles(t, 5, 5)
	})
}

// A guarded transaction commits while the job is this member's, and fails once it is another's.
func TestAGuardedTransactionFailsOnceTheJobHasMoved(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		grouped(t, db, quick, 1)
		s := joined(t, db, "a")
		jobs := make(chan Job, 1)
		work, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() {
			done <- Run(work, s, Config{Group: "g"}, func(ctx context.Context, j Job) error {
				jobs <- j
				<-ctx.Done()
				return nil
			})
		}()
		j := <-jobs
		guarded := func(check func(tx *sql.Tx) error) error {
			return db.InTx(ctx, check)
		}
		fence, err := j.Fence(ctx)
		if err != nil {
			t.Fatal(err)
		}
		byHand := func(tx *sql.Tx) error {
			var bound string
			return tx.QueryRowContext(ctx, fence.Query, fence.Args...).Scan(&bound)
		}
		for _, check := range []func(tx *sql.Tx) error{func(tx *sql.Tx) error { return j.Guard(ctx, tx) }, byHand} {
			if err := guarded(check); err != nil {
				t.Errorf("while it is this member's: got %v, want nil", err)
			}
		}
		if fence.Token != j.Epoch() || j.Epoch() < 1 {
			t.Errorf("got token %d of epoch %d", fence.Token, j.Epoch())
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := guarded(func(tx *sql.Tx) error { return j.Guard(ctx, tx) }); !errors.Is(err, coordd.ErrFenced) {
			t.Errorf("guarded when it is over: got %v, want ErrFenced", err)
		}
		if err := guarded(byHand); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("by hand when it is over: got %v, want no row", err)
		}
	})
}

// What is under way when a job is to move can be finished and written: nobody else has the job before that has returned.
func TestWorkUnderWayIsWrittenBeforeTheJobMoves(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		grouped(t, db, quick, 1)
		s := joined(t, db, "a")
		begun, written := make(chan Job, 1), make(chan error, 1)
		go Run(t.Context(), s, Config{Group: "g"}, func(ctx context.Context, j Job) error {
			begun <- j
			<-ctx.Done()
			ctx = context.WithoutCancel(ctx)
			err := db.InTx(ctx, func(tx *sql.Tx) error { return j.Guard(ctx, tx) })
			written <- err
			return err
		})
		j := <-begun
		b := newBoard()
		serves(t, db, b, "b", Config{Group: "g"})
		if err := heartbeat.Drain(t.Context(), db, s.ID()); err != nil {
			t.Fatal(err)
		}
		if err := <-written; err != nil {
			t.Errorf("before it has returned: got %v, want nil", err)
		}
		b.settles(t, 1)
		if err := db.InTx(t.Context(), func(tx *sql.Tx) error { return j.Guard(t.Context(), tx) }); !errors.Is(err, coordd.ErrFenced) {
			t.Errorf("when it is another's: got %v, want ErrFenced", err)
		}
	})
}

// A member whose work does not return is condemned by the time that it may take now, and not by what that was when it began.
func TestWhoIsGivenMoreTimeHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, shaky, tap := dbtest.VirtualTime(t)
		g := quick
		g.Obey = time.Second
		grouped(t, db, g, 1)
		s := joined(t, shaky, "slow")
		begun, hold := make(chan Job), make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Run(ctx, s, Config{Group: "g"}, func(_ context.Context, j Job) error {
				begun <- j
				<-hold
				return nil
			})
		}()
		<-begun
		g.Obey = time.Hour
		if err := Define(t.Context(), db, g); err != nil {
			t.Fatal(err)
		}
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrBroken })
		dbtest.Eventually(t, "a lapse", func() bool { return s.Status() == heartbeat.Suspended })
		tap.Disturb(nil)
		time.Sleep(time.Minute)
		if s.Status() != heartbeat.Connected {
			t.Fatalf("got %v (%v), want connected: it has an hour", s.Status(), s.Err())
		}
		close(hold)
		<-begun
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// A process that has frozen in a transaction keeps what that has locked, and nothing else.
func TestALockedSlotKeepsNoOther(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		if strings.HasPrefix(dsn, "sqlite") {
			t.Skip("SQLite has one writer: a transaction that has locked anything has locked everything")
		}
		db := dbtest.Migrated(t, dsn)
		g := quick
		g.Slots = 8
		grouped(t, db, g, 100)
		b := newBoard()
		a := serves(t, db, b, "a", Config{Group: "g", NoCandidate: true})
		serves(t, db, b, "b", Config{Group: "g"})
		counting{T: t, db: db}.settles(2)
		tx, err := dbtest.OpenPatient(t, dsn).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		var locked int
		if err := db.Get(t.Context(), []any{&locked}, `select min(slot) from coordd_slots where owner = ?`, a.s.ID()); err != nil {
			t.Fatal(err)
		}
		if _, err := db.On(tx).Exec(t.Context(), `update coordd_slots set guards = guards + 1 where grp = 'g' and slot = ?`, locked); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(t.Context(), `update coordd_heartbeats set state = 'dead' where member_id = ?`, a.s.ID()); err != nil {
			t.Fatal(err)
		}
		mine := func() (n int) {
			for _, name := range owners(t, db) {
				if name == "b" {
					n++
				}
			}
			return n
		}
		dbtest.Eventually(t, "all slots but the one that is locked", func() bool { return mine() == g.Slots-1 })
		tx.Rollback()
		dbtest.Eventually(t, "all slots", func() bool { return mine() == g.Slots })
	})
}

// Who has stopped has given back what it had, though the database did not take that at first.
func TestItIsGivenBackThoughTheDatabaseStumbles(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		shaky, tap := dbtest.OpenTapped(t, dsn)
		grouped(t, db, quick, 12)
		b := newBoard()
		a := serves(t, shaky, b, "a", Config{Group: "g"})
		b.settles(t, 12)
		var tries atomic.Int32
		tap.Disturb(func(_ context.Context, stmt string, do func() error) error {
			if strings.HasPrefix(stmt, "delete from coordd_group_members") && tries.Add(1) <= 2 {
				return errors.New("not now")
			}
			return do()
		})
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
		left := slices.DeleteFunc(owners(t, db), func(name string) bool { return name == "" })
		if len(left) > 0 || tries.Load() != 3 {
			t.Errorf("it has stopped after %d tries and %d slots are still its own; want none, after the third", tries.Load(), len(left))
		}
	})
}

// A database that is too slow to change all slots in the time of one transaction gets there nevertheless.
func TestASlowDatabaseGetsThereInParts(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		slow, tap := dbtest.OpenTapped(t, dsn)
		g := quick
		g.Slots = 8 * pairsAtOnce
		grouped(t, db, g, 100)
		tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
			if strings.Contains(stmt, andEpochs) {
				if err := dbtest.Pause(ctx, shortTTL/16); err != nil { // Timeout is TTL/4
					return err
				}
			}
			return do()
		})
		b := newBoard()
		servesAs(t, slow, b, brief("a"), Config{Group: "g"})
		b.settles(t, 100)
		other := servesAs(t, slow, b, brief("b"), Config{Group: "g", NoCandidate: true})
		counting{T: t, db: db}.settles(2)
		if err := other.stop(); err != nil {
			t.Fatal(err)
		}
		b.settles(t, 100) // what b could not give back within a TTL follows
	})
}

// What is read before slots are changed may take long too.
func TestASlowReadEndsNoChange(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		slow, tap := dbtest.OpenTapped(t, dsn)
		grouped(t, db, quick, 12)
		tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
			if strings.HasPrefix(stmt, "select member_id from coordd_group_members") || strings.HasPrefix(stmt, "select slot, epoch from coordd_slots") {
				if err := dbtest.Pause(ctx, shortTTL/4*3/10); err != nil { // a part of what a statement may take
					return err
				}
			}
			return do()
		})
		b := newBoard()
		a := servesAs(t, slow, b, brief("a"), Config{Group: "g"})
		b.settles(t, 12)
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(owners(t, db), "a") {
			t.Error("it has stopped, and slots are still its own")
		}
	})
}

// A job whose function fails is run again; one whose function returns is not.
func TestAJobThatFailsIsRunAgain(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		grouped(t, db, quick, 2)
		runs := make(chan string, 16)
		go Run(t.Context(), joined(t, db, "a"), Config{Group: "g"}, func(_ context.Context, j Job) error {
			runs <- j.Key
			if j.Key == "job-0" {
				return errors.New("not today")
			}
			return nil
		})
		got := []string{<-runs, <-runs, <-runs, <-runs}
		slices.Sort(got)
		if want := []string{"job-0", "job-0", "job-0", "job-1"}; !slices.Equal(got, want) {
			t.Errorf("got runs of %v, want %v", got, want)
		}
	})
}

func TestChangesAreToldAndAcknowledged(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx := t.Context()
		grouped(t, db, quick, 12)
		s := joined(t, db, "a")
		var mu sync.Mutex
		have, held, hold := map[string]int64{}, []Change{}, false
		work, stop := context.WithCancel(ctx)
		defer stop()
		done := make(chan error, 1)
		go func() {
			for c, err := range Changes(work, s, Config{Group: "g"}) {
				if err != nil {
					done <- err
					return
				}
				mu.Lock()
				for _, key := range c.Released {
					delete(have, key)
				}
				for _, j := range c.Acquired {
					have[j.Key] = j.Epoch()
				}
				if hold && len(c.Released) > 0 {
					held = append(held, c)
				} else {
					c.Done()
				}
				mu.Unlock()
			}
			done <- nil
		}()
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(have) }
		dbtest.Eventually(t, "all jobs", func() bool { return count() == 12 })
		if err := Update(ctx, db, "g", Spec{Key: "job-3", Payload: "new"}); err != nil {
			t.Fatal(err)
		}
		if err := Remove(ctx, db, "g", "job-4"); err != nil {
			t.Fatal(err)
		}
		dbtest.Eventually(t, "one less", func() bool { return count() == 11 })

		mu.Lock()
		hold = true
		mu.Unlock()
		b := newBoard()
		serves(t, db, b, "b", Config{Group: "g"})
		dbtest.Eventually(t, "jobs to be released", func() bool { mu.Lock(); defer mu.Unlock(); return len(held) >= 4 })
		if got := b.shares(); len(got) > 0 {
			t.Errorf("the other runs %v jobs, of which none was acknowledged to have ended", got)
		}
		mu.Lock()
		hold = false
		for _, c := range held {
			c.Done()
			c.Done() // no more than once
		}
		mu.Unlock()
		dbtest.Eventually(t, "about half of them at the other", func() bool {
			n := b.shares()
			return len(n) == 1 && n[0] >= 5 && n[0]+count() == 11
		})
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := count(); n != 0 {
			t.Errorf("at its end it has %d jobs, want none", n)
		}
		b.settles(t, 11)
	})
}

func TestSharesListsAndPreviews(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ctx, b := t.Context(), newBoard()
		grouped(t, db, quick, 90)
		serves(t, db, b, "a", Config{Group: "g"})
		second := serves(t, db, b, "b", Config{Group: "g"})
		b.settles(t, 45, 45)
		shares, err := Shares(ctx, db, "g")
		if err != nil || len(shares) != 2 || shares[0].Name != "a" || shares[0].Jobs != 45 || shares[1].Jobs != 45 || shares[0].Slots+shares[1].Slots != 120 {
			t.Errorf("got %+v, %v; want two of 45 jobs, and 120 slots", shares, err)
		}
		var all []Info
		for after := ""; ; {
			page, err := List(ctx, db, "g", after, 40)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page...)
			if len(page) < 40 {
				break
			}
			after = page[len(page)-1].Key
		}
		if len(all) != 90 || !slices.IsSortedFunc(all, func(a, b Info) int { return strings.Compare(a.Key, b.Key) }) {
			t.Errorf("listed %d jobs, want 90 in order", len(all))
		}
		for _, info := range all[:5] {
			if one, err := Lookup(ctx, db, "g", info.Key); err != nil || one.Owner != info.Owner || one.Owner.Name != b.runsAt(info.Key) {
				t.Errorf("%s: got %+v, %v; want it at %s", info.Key, one.Owner, err, b.runsAt(info.Key))
			}
		}
		owned := slices.DeleteFunc(slices.Clone(all), func(info Info) bool { return info.Owner.MemberID != second.s.ID() })
		page, err := Owned(ctx, db, "g", second.s.ID(), owned[9].Key, 10)
		if err != nil || !slices.EqualFunc(page, owned[10:20], func(a, b Info) bool { return a.Key == b.Key }) {
			t.Errorf("those of one: got %v, %v; want %v", page, err, owned[10:20])
		}

		said, err := Preview(ctx, db, "g", nil, []string{"c"})
		if err != nil {
			t.Fatal(err)
		}
		before := owners(t, db)
		serves(t, db, b, "c", Config{Group: "g"})
		b.settles(t, 30, 30, 30)
		moved(t, said, before, owners(t, db))

		if said, err = Preview(ctx, db, "g", []string{"b"}, nil); err != nil {
			t.Fatal(err)
		}
		before = owners(t, db)
		if err := second.stop(); err != nil {
			t.Fatal(err)
		}
		b.settles(t, 45, 45)
		moved(t, said, before, owners(t, db))
		if _, err := Preview(ctx, db, "g", []string{"nobody"}, nil); !errors.Is(err, coordd.ErrNone) {
			t.Errorf("without somebody who is not there: got %v, want ErrNone", err)
		}
		for _, bad := range []string{"", " c", "c\n", strings.Repeat("c", 201)} {
			if _, err := Preview(ctx, db, "g", nil, []string{bad}); !errors.Is(err, coordd.ErrInvalid) {
				t.Errorf("with %q: got %v, want ErrInvalid", bad, err)
			}
		}
	})
}

// owners are the names of those who own the slots.
func owners(t *testing.T, db *coordd.DB) (names []string) {
	t.Helper()
	slots, err := readSlots(t.Context(), db.Queries, "g")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range slots {
		names = append(names, r.ownerName)
	}
	return names
}

// moved compares what was said to move with what has.
func moved(t *testing.T, said []Move, before, after []string) {
	t.Helper()
	to := map[int]string{}
	for _, m := range said {
		to[m.Slot] = m.To
	}
	if len(said) == 0 {
		t.Error("nothing was said to move")
	}
	for slot := range after {
		want := before[slot]
		if name, moves := to[slot]; moves {
			want = name
		}
		if after[slot] != want {
			t.Errorf("slot %d went from %s to %s, and was said to be %s's", slot, before[slot], after[slot], want)
		}
	}
}
