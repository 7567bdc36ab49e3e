package httpapi

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/google/uuid"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/clock"
)

// A program that is not written in Go serves a group through its daemon. It opens a stream, which
// tells what to begin and what to end; it says what it has carried out, and, every so often, that
// it lives. The daemon serves the group for as long as somebody reads the stream, and no job goes
// to another member before the program has said that it has ended it, or is gone: its connection
// has closed, or it has not renewed the stream for the stream's TTL.
//
// How long the program may count on its jobs is told by each answer to a renewal, counted from
// when the renewal was sent: no longer than the TTL, after which the daemon takes it for gone, and
// no longer than the daemon's own session lasts without another beat. So a program that was frozen,
// or whose daemon was, finds by its own clock that nothing is its own any more.

// How long a program may go without renewing its stream.
const (
	streamTTL      = 10 * time.Second // for whoever does not say
	leastStreamTTL = time.Second
	mostStreamTTL  = time.Minute
)

// sidecar is one stream.
type sidecar struct {
	id, group string
	session   *heartbeat.Session
	ttl       time.Duration
	obey      time.Duration   // how long it may take to end something: the member, which holds more, would be condemned later
	tie       <-chan struct{} // closed when the program has ended its connection; nil: that is not known

	mu      sync.Mutex
	renewed time.Duration   // when the program was last heard of, by the clock of package clock
	promise time.Duration   // until then it may count on its jobs
	closing bool            // nothing more is promised
	last    int64           // change
	open    map[int64]toEnd // by the number of the change
}

// toEnd is what the program was told to end and has not said to have ended.
type toEnd struct {
	done func()
	told time.Duration
}

// Hello is the first message of a stream of jobs.
type Hello struct {
	Stream string `json:"stream" doc:"the id by which it is renewed, and changes are done"`
	Member string `json:"member" doc:"the id of this daemon's member, which owns the jobs"`
	TTLMS  int64  `json:"ttl_ms" doc:"who does not renew the stream for so long is taken for gone"`
}

// JobChange is what has changed of the jobs of one slot.
type JobChange struct {
	Change   int64    `json:"change" doc:"its number, by which it is done"`
	Slot     int      `json:"slot"`
	Epoch    int64    `json:"epoch" doc:"the slot's fencing token"`
	Released []string `json:"released" nullable:"false" doc:"keys of the jobs to end, first of all"`
	Acquired []Work   `json:"acquired" nullable:"false" doc:"jobs to begin then; one that is in both was changed"`
}

// Work is a job to begin.
type Work struct {
	Key     string            `json:"key"`
	Payload string            `json:"payload"`
	Labels  map[string]string `json:"labels"`
}

type serveInput struct {
	GroupPath
	TTL string `query:"ttl" example:"10s" doc:"who does not renew the stream for so long is taken for gone; 1s to 60s"`
	Tied

	ttl time.Duration
}

// Resolve reads what is no simple number.
func (in *serveInput) Resolve(ctx huma.Context) []error {
	if errs := in.resolve(ctx); errs != nil {
		return errs
	}
	in.ttl = streamTTL
	if in.TTL == "" {
		return nil
	}
	d, err := time.ParseDuration(in.TTL)
	if err != nil || d < leastStreamTTL || d > mostStreamTTL {
		return []error{&huma.ErrorDetail{Location: "query.ttl", Message: "it must be a time between 1s and 60s"}}
	}
	in.ttl = d
	return nil
}

// session is one of this daemon's that is connected.
func (a *api) session() (*heartbeat.Session, error) {
	for _, s := range a.Sessions() {
		if s.Valid() {
			return s, nil
		}
	}
	return nil, problem("no_session")
}

// serveGroup serves a group for as long as the request lasts.
func (a *api) serveGroup(ctx context.Context, in *serveInput) (*huma.StreamResponse, error) {
	bound, cancel := bounded(ctx)
	defer cancel()
	group, err := assign.Find(bound, a.DB, in.Group)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	session, err := a.session()
	if err != nil {
		return nil, err
	}
	if in.refused != nil {
		return nil, in.refused
	}
	c := &sidecar{id: uuid.NewString(), group: in.Group, session: session, ttl: in.ttl, obey: group.Defaults().Obey / 2, tie: in.tie, renewed: clock.Now(), open: map[int64]toEnd{}}
	if !a.admit(c) {
		return nil, problem("served_already")
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer a.dismissSidecar(c)
		r, w := humachi.Unwrap(ctx)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no") // nginx would hold messages back
		a.feed(r, c, &stream{w: w, control: http.NewResponseController(w)})
	}}, nil
}

func (a *api) admit(c *sidecar) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, other := range a.sidecars {
		if other.group == c.group {
			return false
		}
	}
	if slices.Contains(a.Groups, c.group) {
		return false
	}
	a.sidecars[c.id] = c
	return true
}

func (a *api) dismissSidecar(c *sidecar) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sidecars, c.id)
}

// feed tells a program what to do, until it is gone, the daemon ends or its session is over. Then
// nothing of it runs any more, or it has been told so by its own clock.
func (a *api) feed(r *http.Request, c *sidecar, s *stream) {
	ctx, cut := context.WithCancel(context.WithoutCancel(r.Context()))
	var serving sync.WaitGroup
	defer func() {
		c.keepPromise()
		cut()
		c.doneAll() // or what it was told to end, and nothing else, would be waited for
		serving.Wait()
	}()
	if s.send(message{first: true, event: "hello", data: Hello{c.id, c.session.ID(), c.ttl.Milliseconds()}}) != nil {
		return
	}
	changes := make(chan assign.Change)
	var failed error
	serving.Go(func() {
		defer close(changes)
		for change, err := range assign.Changes(ctx, c.session, assign.Config{Group: c.group, Client: c.id, Logger: a.Logger}) {
			if failed = err; err != nil {
				return
			}
			select {
			case changes <- change:
			case <-ctx.Done():
				return
			}
		}
	})
	ping := time.NewTicker(Ping)
	defer ping.Stop()
	overdue := time.NewTicker(min(c.ttl, c.obey) / 4)
	defer overdue.Stop()
	for err := error(nil); err == nil; {
		select {
		case change, more := <-changes:
			if !more {
				if failed != nil {
					_ = s.send(message{event: "problem", data: a.problem(ctx, failed)}) // fails only if the client has gone
				}
				return
			}
			shown := c.note(change)
			err = s.send(message{id: shown.Change, event: "change", data: shown})
		case <-ping.C:
			if who, known := a.identify(r); !known || !who.role.allows(Operator) {
				return
			}
			err = s.ping()
		case <-overdue.C:
			if c.silent() {
				a.Logger.Warn("a program does not renew its stream, and is taken for gone", "group", c.group, "ttl", c.ttl)
				return
			}
			if c.late() {
				a.Logger.Warn("a program does not end what it was told to end, and its stream is closed", "group", c.group, "after", c.obey)
				return
			}
		case <-a.life.Done():
			return
		case <-r.Context().Done():
			return
		}
	}
}

// keepPromise waits until the program cannot count on its jobs any more.
func (c *sidecar) keepPromise() {
	c.mu.Lock()
	c.closing = true
	left := c.promise - clock.Now()
	c.mu.Unlock()
	select {
	case <-time.After(left):
	case <-c.tie: // the program has ended, or its connection by its own will
	case <-c.session.Done(): // it was not promised more than that
	}
}

// doneAll ends what the program was told and has not done.
func (c *sidecar) doneAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.open {
		o.done()
	}
	clear(c.open)
}

// note numbers a change.
func (c *sidecar) note(change assign.Change) JobChange {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	if len(change.Released) > 0 {
		c.open[c.last] = toEnd{change.Done, clock.Now()}
	}
	shown := JobChange{Change: c.last, Slot: change.Slot, Epoch: change.Epoch, Released: change.Released, Acquired: []Work{}}
	if shown.Released == nil {
		shown.Released = []string{}
	}
	for _, j := range change.Acquired {
		labels := maps.Clone(j.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		shown.Acquired = append(shown.Acquired, Work{j.Key, j.Payload, labels})
	}
	return shown
}

// silent says whether the program was not heard of for the stream's TTL.
func (c *sidecar) silent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return clock.Now()-c.renewed > c.ttl
}

// late says whether the program has not ended what it was told to end long ago.
func (c *sidecar) late() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.open {
		if clock.Now()-o.told > c.obey {
			return true
		}
	}
	return false
}

// StreamPath names a stream of jobs.
type StreamPath struct {
	GroupPath
	Stream string `path:"stream" doc:"its id, as its first message has it"`
}

func (a *api) sidecar(in StreamPath) (*sidecar, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.sidecars[in.Stream]
	if c == nil || c.group != in.Group {
		return nil, problem("stream_over")
	}
	return c, nil
}

type doneInput struct {
	StreamPath
	Body struct {
		_       struct{} `additionalProperties:"false"`
		Changes []int64  `json:"changes" nullable:"false" maxItems:"10000" doc:"numbers of changes of which all is done"`
	}
}

// streamDone takes note of what a program has carried out.
func (a *api) streamDone(_ context.Context, in *doneInput) (*struct{}, error) {
	c, err := a.sidecar(in.StreamPath)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range in.Body.Changes {
		if o, open := c.open[n]; open {
			delete(c.open, n)
			o.done()
		}
	}
	return nil, nil
}

// Renewal says how long a program may go on.
type Renewal struct {
	ValidMS int64 `json:"valid_ms" doc:"for so long its jobs are its own, counted from when it sent the request; 0: end them all now"`
}

type renewalOutput struct{ Body Renewal }

// streamRenew hears that a program lives. What it promises ends before the session does, and before
// the program is taken for gone.
func (a *api) streamRenew(_ context.Context, in *StreamPath) (*renewalOutput, error) {
	c, err := a.sidecar(*in)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := clock.Now()
	if c.closing || now-c.renewed > c.ttl {
		return nil, problem("stream_over")
	}
	c.renewed = now
	valid := min(c.ttl, c.session.Stats().Remaining)
	if !c.session.Valid() {
		valid = 0
	}
	c.promise = max(c.promise, now+valid)
	return &renewalOutput{Renewal{(valid - valid/50).Milliseconds()}}, nil // clocks may differ by a hundredth
}

// sidecarStream describes a stream of jobs.
func sidecarStream(o huma.Operation) huma.Operation {
	o.Responses["200"] = &huma.Response{
		Description: "Server-Sent Events: `hello` with a Hello; `change` with a JobChange, its id the change's number; `problem` with a Problem, after which it ends",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
	return o
}
