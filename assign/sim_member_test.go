package assign_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/heartbeat"
)

func (s *member) note(what string, args ...any) {
	s.machine.w.sim.Note(s.machine.host.Name, what, args...)
}
func (s *member) saw(what string) { s.machine.w.ledger.saw(what) }
func (s *member) quiet() bool     { return s.machine.w.sim.Since() >= chaos }

// rand is a source of chance for one goroutine.
func (s *member) rand() *rand.Rand {
	s.mu.Lock()
	defer s.mu.Unlock()
	return rand.New(rand.NewPCG(s.r.Uint64(), 0))
}

// until waits for d, and says false as soon as ctx has ended.
func until(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// serve serves the group until the session ends or the world has settled; now and then it stops,
// and begins again.
func (s *member) serve() {
	r, l := s.rand(), s.machine.w.ledger
	for again := false; until(s.ctx, upTo(r, 0.3)) && s.Err() == nil; again = true {
		ctx, cancel := context.WithCancel(s.ctx)
		if end := upTo(r, 2*chaos.Seconds()); s.machine.w.sim.Since()+end < chaos {
			time.AfterFunc(end, cancel)
		}
		cfg := assign.Config{Group: simGroup, Planner: s.machine.w.planner, NoCandidate: !s.machine.first && r.IntN(4) == 0}
		serve := s.run
		if r.IntN(2) == 0 {
			serve = s.loop
		}
		l.serving(s, true)
		s.note("%s serves", tail(s.ID()))
		err := serve(ctx, cfg, r)
		s.note("%s serves no more: %v", tail(s.ID()), err)
		l.serving(s, false)
		if again && err == nil {
			s.saw(sawAgain)
		}
		s.judge(ctx, err, again)
		cancel()
	}
}

// judge says whether the service may have ended like this.
func (s *member) judge(ctx context.Context, err error, again bool) {
	switch {
	case err == nil && ctx.Err() != nil || errors.Is(err, errBroke):
	case errors.Is(err, heartbeat.ErrLeft), errors.Is(err, coordd.ErrLost):
		if s.Err() == nil {
			s.machine.w.sim.Violated("%s serves no more, and its session lives: %v", tail(s.ID()), err)
		}
	case errors.Is(err, coordd.ErrHeld) && again: // what it had is not given back yet
	case errors.Is(err, coordd.ErrNone) && s.machine.w.ledger.dropped():
		s.cancel()
	case ctx.Err() != nil && s.Err() == nil && errors.Is(err, context.Canceled): // it had hardly begun
	default:
		s.machine.w.sim.Violated("%s serves no more: %v", tail(s.ID()), err)
	}
}

func (s *member) run(ctx context.Context, cfg assign.Config, _ *rand.Rand) error {
	return assign.Run(ctx, s.Session, cfg, s.work)
}

var errBroke = errors.New("left the loop")

// loop serves the group as one loop over many jobs.
func (s *member) loop(ctx context.Context, cfg assign.Config, r *rand.Rand) error {
	h := &hands{member: s, alone: r.IntN(2) == 0, jobs: map[string]*hand{}}
	for change, err := range assign.Changes(ctx, s.Session, cfg) {
		if err != nil {
			return err
		}
		h.take(change)
		if s.machine.w.sim.Since() < chaos && r.IntN(60) == 0 {
			s.saw(sawBroke)
			h.end()
			return errBroke
		}
	}
	return nil
}

// hands do the work of a loop: each job has a goroutine.
type hands struct {
	*member
	alone bool // the loop waits for what it stops; else others do

	mu   sync.Mutex
	jobs map[string]*hand
	all  sync.WaitGroup
}

// hand is the work of one job.
type hand struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// take carries a change out. What is acquired begins when what was there has ended.
func (h *hands) take(c assign.Change) {
	var released []*hand
	h.mu.Lock()
	for _, key := range c.Released {
		if w := h.jobs[key]; w != nil {
			w.cancel()
			released = append(released, w)
			delete(h.jobs, key)
		} else {
			h.machine.w.sim.Violated("%s is to release %s, and has not acquired it", tail(h.ID()), key)
		}
	}
	before := map[string]*hand{}
	h.mu.Unlock()
	finish := func() {
		for _, w := range released {
			<-w.ended
		}
		c.Done()
	}
	if h.alone {
		finish()
	} else {
		for i, key := range c.Released {
			before[key] = released[i]
		}
		h.all.Go(finish)
	}
	for _, j := range c.Acquired {
		h.begin(c.Context, j, before[j.Key])
	}
}

func (h *hands) begin(ctx context.Context, j assign.Job, before *hand) {
	ctx, cancel := context.WithCancel(ctx)
	w := &hand{cancel: cancel, ended: make(chan struct{})}
	h.mu.Lock()
	if h.jobs[j.Key] != nil {
		h.machine.w.sim.Violated("%s has acquired %s twice", tail(h.ID()), j.Key)
	}
	h.jobs[j.Key] = w
	h.mu.Unlock()
	h.all.Go(func() {
		defer close(w.ended)
		if before != nil {
			<-before.ended
		}
		for ctx.Err() == nil {
			if err := h.work(ctx, j); err == nil {
				<-ctx.Done()
			}
			until(ctx, 100*time.Millisecond)
		}
	})
}

// end ends all work.
func (h *hands) end() {
	h.mu.Lock()
	for _, w := range h.jobs {
		w.cancel()
	}
	h.mu.Unlock()
	h.all.Wait()
}

var errFailed = errors.New("failed")

// work is the function of a job: it writes now and then under the job's guard, fails, or has
// nothing to do. In the quiet time it goes on until it is told to stop.
func (s *member) work(ctx context.Context, j assign.Job) error {
	r, l := s.rand(), s.machine.w.ledger
	began := l.begins(s, ctx, j)
	for until(ctx, upTo(r, 2)) {
		if s.quiet() {
			<-ctx.Done()
			break
		}
		s.machine.host.Stand()
		switch chance := r.IntN(20); {
		case chance == 0:
			l.ends(began, false)
			s.saw(sawFailed)
			return errFailed
		case chance == 1:
			l.ends(began, true)
			return nil
		case chance < 10:
			s.write(ctx, r, j)
		}
	}
	s.dawdle(ctx, r, j)
	l.ends(began, false)
	return ctx.Err()
}

// dawdle is what is done by one who has been told to stop: in most cases nothing. Nobody waits for those
// whose session is over, and some of them write on when others have taken over.
func (s *member) dawdle(ctx context.Context, r *rand.Rand, j assign.Job) {
	most, chance := 0.5, r.IntN(100)
	if !errors.Is(context.Cause(ctx), assign.ErrMoved) {
		most, chance = 3, chance/2
	} else if chance < 2 || s.machine.w.stubborn {
		most = 6
	}
	if s.quiet() || chance > 25 {
		return
	}
	s.saw(sawLate)
	end := min(chaos+time.Second, s.machine.w.sim.Since()+upTo(r, most))
	for s.machine.w.sim.Since() < end {
		time.Sleep(min(upTo(r, 1), end-s.machine.w.sim.Since()))
		if r.IntN(2) == 0 {
			s.write(context.Background(), r, j)
		}
	}
}

const insertWork = `insert into sim_work (slot, epoch, member) values (?, ?, ?)`

// write writes something in a guarded transaction, in the one or the other way.
func (s *member) write(ctx context.Context, r *rand.Rand, j assign.Job) {
	ctx, cancel := context.WithTimeout(ctx, s.machine.ttl/4)
	defer cancel()
	guard := s.fence
	if r.IntN(2) == 0 {
		guard = func(ctx context.Context, tx *sql.Tx, j assign.Job) error { return j.Guard(ctx, tx) }
	}
	err := s.process.DB.InTx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, insertWork, j.Slot(), j.Epoch(), s.ID()); err != nil {
			return err
		}
		return guard(ctx, tx, j)
	})
	if errors.Is(err, coordd.ErrFenced) {
		s.saw(sawFence)
	}
	if err != nil {
		s.note("has not written under slot %d epoch %d: %v", j.Slot(), j.Epoch(), err)
	}
}

// fence is as others guard who have the fence in their own words, and do not ask whether the job is
// valid.
func (s *member) fence(ctx context.Context, tx *sql.Tx, j assign.Job) error {
	fence, err := j.Fence(ctx)
	if err != nil {
		return err
	}
	var bound string
	err = tx.QueryRowContext(ctx, fence.Query, fence.Args...).Scan(&bound)
	if errors.Is(err, sql.ErrNoRows) {
		err = coordd.ErrFenced
	}
	return err
}
