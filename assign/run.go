package assign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/name"
)

// Config says how a member serves a group. Only Group is needed.
type Config struct {
	Group string

	// Client says on whose behalf the member serves the group, where its work is another process's:
	// that one may go on for as long as the session was valid when this process dies. Empty: its own.
	Client string

	// Grace is after how long work of [Run] that was told to end, and has not, is named in a warning; 0
	// means 10 s. Its slot is held until it has really returned.
	Grace time.Duration

	// Starts is how many functions [Run] starts in a second at most; 0 means 20,000.
	Starts int

	// Planner decides who owns what when this member leads the group; nil means the group's
	// strategy. All members should say the same.
	Planner Planner

	// NoCandidate has this member own jobs and never lead the group, which is to plan for all.
	NoCandidate bool

	// Logger hears of what moves, and of work that fails or does not end; nil means silence.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.Starts == 0 {
		c.Starts = 20_000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Run serves a group: it runs fn for each job that this member owns, and takes part in deciding
// who owns what. The context of fn ends when the job moves, is removed or changed, or the session
// is suspended or ends; context.Cause says which. Nobody else is given the job before fn has
// returned, or this session has ended.
//
// A fn that returns an error is run again after a pause, which grows from one second to a minute;
// one that returns nil has nothing to do until the job is changed or moves. A session that was
// suspended and is connected again runs all that is still its own once more.
//
// It returns nil when ctx has ended, all work has returned and others may have it: they know that, or
// hear of it once the database answers, which is waited for for a TTL at most. To come back under the same name
// and find the jobs still there, call [heartbeat.Session.Restart] and let that end it, not ctx.
//
// It fails with [coordd.ErrLost] or [heartbeat.ErrLeft] when the session is over, with [ErrNoGroup] if there is
// none, and with [coordd.ErrHeld] where the session serves it already.
func Run(ctx context.Context, s *heartbeat.Session, cfg Config, fn func(ctx context.Context, job Job) error) error {
	cfg = cfg.withDefaults()
	r := &runners{cfg: cfg, fn: fn, starts: make(chan struct{})}
	pacing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var pacer sync.WaitGroup
	pacer.Go(func() { r.pace(pacing) })
	defer pacer.Wait()
	defer stop()
	return serve(ctx, s, cfg, r)
}

// serve serves a group by some crews.
func serve(ctx context.Context, s *heartbeat.Session, cfg Config, c crews) error {
	if err := checkGroup(cfg.Group); err != nil {
		return err
	}
	if err := name.CheckOptional("client", cfg.Client); err != nil {
		return fmt.Errorf("group %q: %w: %w", cfg.Group, coordd.ErrInvalid, err)
	}
	if cfg.Grace < 0 || cfg.Starts < 0 {
		return fmt.Errorf("group %q: %w: grace %v, %d starts a second: neither may be below 0", cfg.Group, coordd.ErrInvalid, cfg.Grace, cfg.Starts)
	}
	g := s.Beside(gateKey(cfg.Group), func(seam heartbeat.Seam) any { return &gate{Seam: seam} }).(*gate)
	if !g.enter() {
		return fmt.Errorf("group %q: %w: this session serves it already, or has not yet given back what it had", cfg.Group, coordd.ErrHeld)
	}
	k := &keeper{
		Seam: g.Seam, session: s, group: cfg.Group, client: cfg.Client, crews: c, log: cfg.Logger, values: context.WithoutCancel(ctx), leave: g.leave,
		pokes: make(chan struct{}, 1), obey: Options{}.Defaults().Obey, slots: map[int]*holding{}, dirty: map[int]bool{}, ahead: map[int][]Job{}, anew: true, atOnce: slotsAtOnce,
	}
	if err := k.find(ctx); errors.Is(err, coordd.ErrNone) || hopeless(err) {
		g.leave()
		return err
	}
	work, cancel := context.WithCancel(ctx)
	l := newLeader(k, cfg)
	k.jobsNews = l.jobsChanged
	var leading sync.WaitGroup
	if !cfg.NoCandidate {
		leading.Go(func() { l.run(work) })
	}
	err := k.serve(ctx)
	cancel()
	leading.Wait()
	return err
}

// gate lets one call at a time serve a group in a session.
type gate struct {
	heartbeat.Seam
	mu   sync.Mutex
	busy bool
}

type gateKey string

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.busy
	g.busy = true
	return !was
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy = false
}

// runners run one function for each job.
type runners struct {
	cfg    Config
	fn     func(ctx context.Context, job Job) error
	starts chan struct{} // each value is leave to start a function

	mu   sync.Mutex
	crew map[*holding]*crew
}

// crew is the work of one slot.
type crew struct {
	r *runners
	h *holding

	mu      sync.Mutex
	jobs    map[string]*work
	stopped bool
}

// work is one job's.
type work struct {
	job     Job
	removed bool
	cancel  context.CancelCauseFunc // ends what runs of it
}

func (r *runners) of(h *holding) *crew {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.crew == nil {
		r.crew = map[*holding]*crew{}
	}
	if r.crew[h] == nil {
		r.crew[h] = &crew{r: r, h: h, jobs: map[string]*work{}}
	}
	return r.crew[h]
}

func (r *runners) set(h *holding, jobs []Job) { r.of(h).set(jobs) }

func (r *runners) stop(h *holding) {
	c := r.of(h)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	c.stopped = true
	if len(c.jobs) == 0 {
		c.end()
		return
	}
	time.AfterFunc(r.cfg.Grace, c.warn)
}

// end says that nothing runs any more. It is called with mu held.
func (c *crew) end() {
	c.r.mu.Lock()
	delete(c.r.crew, c.h)
	c.r.mu.Unlock()
	c.h.returned()
}

// warn names what has been told to end and has not.
func (c *crew) warn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.jobs) > 0 {
		some := slices.Sorted(maps.Keys(c.jobs))
		c.r.cfg.Logger.Warn("jobs do not end though their context has; their slot is held until they do",
			"group", c.h.k.group, "slot", c.h.slot, "jobs", some[:min(3, len(some))], "count", len(some))
	}
}

func (c *crew) set(jobs []Job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	missing := maps.Clone(c.jobs)
	for _, j := range jobs {
		delete(missing, j.Key)
		switch w := c.jobs[j.Key]; {
		case w == nil:
			w = &work{job: j, cancel: func(error) {}}
			c.jobs[j.Key] = w
			go c.run(w)
		case w.removed || !same(w.job, j):
			w.job, w.removed = j, false
			w.cancel(ErrChanged)
		}
	}
	for _, w := range missing {
		w.removed = true
		w.cancel(ErrRemoved)
	}
}

func same(a, b Job) bool { return a.Payload == b.Payload && maps.Equal(a.Labels, b.Labels) }

// How long a job pauses that has failed. The pause doubles, and begins anew after work that went on
// for longer than the longest.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// run runs the function of a job, again and again, until the job is another's or removed.
func (c *crew) run(w *work) {
	pause := firstPause
	for {
		ctx, job, ok := c.begin(w)
		if !ok {
			return
		}
		began := time.Now()
		err := c.r.do(ctx, job)
		switch {
		case ctx.Err() != nil:
			pause = firstPause
			continue
		case err == nil:
			<-ctx.Done()
			continue
		case time.Since(began) > lastPause:
			pause = firstPause
		}
		c.r.cfg.Logger.Warn("a job has failed, and is run again after a pause", "group", job.Group(), "job", job.Key, "error", err, "pause", pause)
		sleep(ctx, pause/2+rand.N(pause), nil)
		pause = min(2*pause, lastPause)
	}
}

// pace gives leave to start functions, so many in a second. That no job waits for it by itself costs less memory:
// there may be a hundred thousand.
func (r *runners) pace(ctx context.Context) {
	limit := rate.NewLimiter(rate.Limit(r.cfg.Starts), max(1, r.cfg.Starts/10))
	for limit.Wait(ctx) == nil {
		select {
		case r.starts <- struct{}{}:
		case <-ctx.Done():
		}
	}
}

func (r *runners) do(ctx context.Context, job Job) error {
	select {
	case <-r.starts:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !job.holding.valid() { // the clock knows that before the context does
		<-ctx.Done()
		return ctx.Err()
	}
	return r.fn(ctx, job)
}

// begin makes the context for one run of a job, or says that there is to be none.
func (c *crew) begin(w *work) (ctx context.Context, job Job, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped || w.removed || c.h.ctx.Err() != nil {
		delete(c.jobs, w.job.Key)
		if c.stopped && len(c.jobs) == 0 {
			c.end()
		}
		return nil, Job{}, false
	}
	w.cancel(nil) // of the run before
	ctx, w.cancel = context.WithCancelCause(c.h.ctx)
	return ctx, w.job, true
}
