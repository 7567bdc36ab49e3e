package rights

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/lock"
)

// right is a right that a client has, or waits for. All that changes is guarded by the desk's mu.
type right struct {
	Ask     // as it was taken
	desk    *Desk
	session *heartbeat.Session
	seam    heartbeat.Seam
	tries   bool // it takes no place in the queue

	state    State
	counted  *int // where it is counted
	value    string
	held     held            // nil: it is not yet
	why      why             // it ends
	failed   error           // why it was not had
	asking   int             // requests under way
	answered bool            // it was promised to its client
	expires  time.Duration   // when it ends, unless a request is under way
	promised time.Duration   // it is not given back before, unless the client gives it up
	tie      <-chan struct{} // nil: none

	woken  chan struct{}
	queued chan struct{} // closed when it has a place in the queue
	had    chan struct{} // closed when it is held
	gone   chan struct{} // closed when the desk does not have it any more
	forget func()        // sees to that
	unhook func() bool
}

// why says why a right ends.
type why struct {
	reason Reason
	err    error // nil where the client knows
}

func (w why) byClient() bool { return w.reason == GivenUp || w.reason == Expired || w.reason == Cut }

// lost is what a client is told.
func (w why) lost() error { return &LostError{w.reason, w.err} }

// past is before whatever a clock may show.
const past = time.Duration(math.MinInt64)

type seamKey struct{}

// newRight has a right taken, and kept until it ends or the session does. It is called with mu held.
func newRight(d *Desk, s *heartbeat.Session, ask Ask) *right {
	r := &right{
		Ask: ask, desk: d, session: s, tries: ask.Wait == 0, tie: ask.Tie, asking: 1,
		seam:    s.Beside(seamKey{}, func(seam heartbeat.Seam) any { return seam }).(heartbeat.Seam),
		expires: past, promised: past,
		woken: make(chan struct{}, 1), queued: make(chan struct{}), had: make(chan struct{}), gone: make(chan struct{}),
	}
	if ask.Value != nil {
		r.value = *ask.Value
	}
	r.become(Waits)
	r.forget = sync.OnceFunc(r.leave)
	r.unhook = context.AfterFunc(r.seam.Life, r.forget) // also where nothing is begun any more
	r.seam.Go(r.live)
	return r
}

// leave takes it off the desk.
func (r *right) leave() {
	d := r.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	r.unhook()
	if r.state == Holds { // until now, with its session
		r.end(Lost, r.session.Err())
	}
	delete(d.rights, r.Key)
	if d.leads[r.Name] == r {
		delete(d.leads, r.Name)
	}
	switch {
	case r.failed != nil:
	case r.why.reason != "":
		r.failed = r.why.lost()
	default:
		r.failed = ErrNoSession
	}
	r.become("")
	close(r.gone)
}

// become says how it stands now. Who ends is counted as what it was. It is called with mu held.
func (r *right) become(next State) {
	r.state = next
	if next == Ends {
		return
	}
	if r.counted != nil {
		*r.counted--
	}
	counts := r.desk.counts[r.Kind]
	switch r.counted = nil; next {
	case Waits:
		r.counted = &counts.Waiting
	case Holds:
		r.counted = &counts.Held
	}
	if r.counted != nil {
		*r.counted++
	}
}

// wake has live look again.
func (r *right) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// end ends it; what was promised is kept. It is called with mu held.
func (r *right) end(reason Reason, err error) {
	if r.state == Ends {
		return
	}
	if r.state == Holds {
		r.desk.counts[r.Kind].Ended[reason]++
	}
	r.why = why{reason, err}
	r.become(Ends)
}

// giveUp ends it by the will of its client, which counts on it no more. It is called with mu
// held.
func (r *right) giveUp(reason Reason) {
	r.end(reason, nil)
	r.promised = past
}

// live takes it, keeps it for as long as it is renewed, and gives it back.
func (r *right) live(life context.Context) {
	defer r.forget()
	taking, cancel := context.WithCancel(life)
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		r.take(taking)
	}()
	r.until(taken)
	cancel()
	<-taken
	r.until(life.Done())
	// With the session it is free when all that it promised has passed, and not before.
	if life.Err() == nil && r.held != nil {
		r.giveBack(life)
	}
}

// until looks after it until it is over, or something else is done.
func (r *right) until(done <-chan struct{}) {
	for {
		l := r.look()
		if l.over {
			return
		}
		timer := time.NewTimer(l.pause)
		select {
		case <-timer.C:
		case <-l.lost:
		case <-l.cut:
		case <-r.woken:
		case <-done:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// look is when to look again.
type look struct {
	over      bool // it can be given back
	pause     time.Duration
	lost, cut <-chan struct{}
}

// long is a pause that something will end.
const long = time.Hour

// look ends it if it must end.
func (r *right) look() look {
	r.desk.mu.Lock()
	defer r.desk.mu.Unlock()
	now := r.desk.Now()
	if closed(r.tie) {
		r.tie = nil
		r.giveUp(Cut)
	}
	if r.state == Holds {
		r.lose(r.held.Err())
	}
	if r.asking == 0 && now >= r.expires && r.state != Ends {
		r.giveUp(Expired)
	}
	switch {
	case r.failed != nil, r.state == Ends && now >= r.promised:
		return look{over: true}
	case r.state == Ends:
		return look{pause: r.promised - now, cut: r.tie}
	}
	l := look{pause: long, cut: r.tie}
	if r.asking == 0 {
		l.pause = r.expires - now
	}
	if r.held != nil {
		l.lost = r.held.Context().Done()
	}
	return l
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// lose ends it for a reason that is not its client's. It is called with mu held.
func (r *right) lose(err error) {
	switch {
	case err == nil:
	case errors.Is(err, lock.ErrRequested):
		r.end(Requested, err)
	case errors.Is(err, election.ErrUnfit):
		r.end(Unfit, err)
	default:
		r.end(Lost, err)
	}
}

// giveBack gives it back. What is not answered is told again by the session.
func (r *right) giveBack(life context.Context) {
	log := r.desk.Logger.With(string(r.Kind), r.Name, "client", r.Client, "token", r.held.Token(), "member", r.session.ID())
	if err := r.held.Release(life); err != nil {
		log.Warn("what a client has given up is not free yet", "error", err)
	}
	if r.why.reason != GivenUp {
		log.Info("a client's right has ended", "reason", r.why.reason, "error", r.why.err)
	}
}
