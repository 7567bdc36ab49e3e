package assign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
)

// Why the context of a job ends that its session has not lost. They are causes of it.
var (
	ErrMoved   = errors.New("the job goes to another member")
	ErrRemoved = errors.New("the job was removed or paused")
	ErrChanged = errors.New("the job was changed, and starts anew")
	ErrStopped = errors.New("this member serves the group no more")
)

// keeper serves one group in one session. Everything but ready is used by the goroutine of serve
// alone.
type keeper struct {
	heartbeat.Seam
	session *heartbeat.Session
	group   string
	client  string
	crews   crews
	log     *slog.Logger
	values  context.Context // of Run's caller
	pokes   chan struct{}   // something has returned or ended
	leave   func()          // the group may be served anew
	obey    time.Duration   // how long work may take to return
	served  bool            // the database may know that this member serves the group

	slots    map[int]*holding
	dirty    map[int]bool  // slots whose jobs are to be read
	ahead    map[int][]Job // jobs of slots that are on their way to here; nil: they are to be read
	anew     bool          // the next read is of everything, and what was known is old
	seen     int64         // the plan's version as it is carried out here
	told     int64         // the same, as the database knows it
	toldAt   time.Time
	atOnce   int       // of how many slots the jobs are read by one statement
	cursor   int64     // events about jobs are known up to this revision
	expects  time.Time // until then slots are on their way to here
	jobsNews func()    // jobs have changed
}

// crews are those who do the work of slots.
type crews interface {
	// set says which jobs a slot has, at first and whenever that has changed.
	set(h *holding, jobs []Job)
	// stop is called when the slot's context has ended; [holding.returned] once nothing of it
	// runs any more. It may be called twice.
	stop(h *holding)
}

// phase is what has become of a slot here.
type phase int

const (
	running  phase = iota // its context lives
	stopping              // its context has ended, and work of it has not returned
	stopped               // nothing of it runs
	sent                  // and a statement is under way that gives it away, or was answered by no one
)

// holding is a slot that this member owns, or has not yet heard that it does not.
type holding struct {
	k     *keeper
	slot  int
	epoch int64

	phase   phase
	gone    bool   // the row is another's, or of another epoch
	again   bool   // it is of another epoch, and this member's
	stale   bool   // the row was not read since something has happened
	target  string // who is to be its next owner
	stamp   int64  // the version of the plan that has it so
	awaited bool   // the target has not yet said that it knows
	asked   time.Time

	ctx  context.Context
	end  context.CancelCauseFunc
	drop func() // tells the session that the work has returned

	mu       sync.Mutex
	finished bool // the work has returned
}

// returned says that nothing of a slot runs any more.
func (h *holding) returned() {
	h.mu.Lock()
	h.finished = true
	h.mu.Unlock()
	h.k.poke()
}

func (h *holding) hasReturned() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.finished
}

// valid says whether the slot is this member's at this instant.
func (h *holding) valid() bool { return h.ctx.Err() == nil && h.k.session.Valid() }

func (k *keeper) poke() {
	select {
	case k.pokes <- struct{}{}:
	default: // it has not taken the last one yet, and looks after that
	}
}

// How long a member waits between two looks at the plan.
const (
	nearPoll = 200 * time.Millisecond // while something is on its way, and no ring of others arrives
	farPoll  = time.Second            // while something is on its way, at most
	coalesce = 5 * time.Millisecond   // for rings and returns that come together
)

// serve carries the plan out until ctx ends or the session is over. When it returns, no work of
// this group runs in this session.
func (k *keeper) serve(ctx context.Context) error {
	rings, stop := k.DB.Listen("")
	defer stop()
	failing := false
	for {
		news := k.News()
		if ctx.Err() != nil || k.session.Status() == heartbeat.Over {
			return k.finish(ctx)
		}
		err := k.step(ctx)
		switch {
		case errors.Is(err, ErrNoGroup), hopeless(err):
			return fmt.Errorf("group %q: %w", k.group, errors.Join(err, k.finish(ctx)))
		case err != nil && ctx.Err() == nil && !failing:
			k.log.Warn("the plan of a group cannot be read or carried out; it is tried again until it can", "group", k.group, "error", err)
		}
		failing = err != nil
		sleep(ctx, coalesce, nil)
		k.await(ctx, news, rings, k.pause(failing))
	}
}

// hopeless says whether an error is somebody's mistake, that nobody corrects by waiting.
func hopeless(err error) bool {
	return errors.Is(err, coordd.ErrSchema) || errors.Is(err, coordd.ErrForbidden)
}

// await waits for a reason to look.
func (k *keeper) await(ctx context.Context, news, rings <-chan struct{}, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-k.Life.Done():
	case <-news:
	case <-rings:
	case <-k.pokes:
	case <-timer.C:
	}
	for _, also := range []<-chan struct{}{rings, k.pokes} { // one look is for all that has happened
		select {
		case <-also:
		default:
		}
	}
}

// pause is how long nothing need be done unless somebody says so.
func (k *keeper) pause(failing bool) time.Duration {
	unsettled := failing || k.anew || len(k.dirty) > 0 || time.Now().Before(k.expects)
	for _, h := range k.slots {
		unsettled = unsettled || h.phase != running || h.target != ""
	}
	pause := 2 * k.Beat // a look that has seen another revision comes first
	switch {
	case unsettled && k.DB.Hears() && !failing:
		pause = farPoll
	case unsettled:
		pause = nearPoll
	}
	if k.told < k.seen && !k.anew && !failing {
		pause = min(pause, max(0, time.Until(k.tellDue())))
	}
	return pause
}

// step reads what has changed, and does what is to be done about it.
func (k *keeper) step(ctx context.Context) error {
	if k.session.Status() != heartbeat.Connected {
		k.lapse()
		return nil
	}
	if err := k.look(ctx); err != nil {
		return err
	}
	for looked, more := time.Now(), true; more; {
		var err error
		if more, err = k.moveSome(ctx); err != nil {
			return err
		}
		if more && (k.anew || time.Since(looked) > nearPoll/2) {
			k.poke()
			break
		}
	}
	k.takeUpAgain()
	return errors.Join(k.tell(ctx), k.loadJobs(ctx), k.checkReturns(ctx)) // what was carried out is about slots
}

// moveSome stops and hands over as much as goes by one transaction, and says whether there is more.
func (k *keeper) moveSome(ctx context.Context) (more bool, err error) {
	some, more := k.stopMoving()
	if some {
		sleep(ctx, coalesce, nil) // for most of the work to return
	}
	k.settle()
	return more, k.giveAway(ctx)
}

// lapse forgets what was known, as its right to know has run out: what is this member's is read
// again once the session is connected. What runs is ended, if the clock has not done it already.
func (k *keeper) lapse() {
	k.anew = true
	for _, h := range k.slots {
		k.stop(h, heartbeat.ErrSuspended)
		h.stale = true
	}
	k.settle()
}

// stop ends the work on a slot.
func (k *keeper) stop(h *holding, why error) {
	if h.phase == running {
		h.phase, h.asked = stopping, time.Now()
		h.end(why)
		k.crews.stop(h)
	}
}

// stopMoving stops the work on slots that another is to own, once that one knows it; it may be
// slow to hear of it, and what nobody looks after meanwhile is looked after here. It stops no more
// at a time than one statement hands over, in the order in which their jobs are read there, and says
// whether there were some, and are more.
func (k *keeper) stopMoving() (some, more bool) {
	var moving []*holding
	for _, h := range k.slots {
		switch {
		case h.phase != running:
		case h.ctx.Err() != nil:
			k.stop(h, context.Cause(h.ctx)) // the session's clock was faster
		case h.gone:
			k.stop(h, ErrMoved)
		case h.target != "" && (!h.awaited || k.DB.Hears() || time.Since(h.asked) > k.Beat+farPoll):
			moving = append(moving, h)
		}
	}
	slices.SortFunc(moving, func(a, b *holding) int { return a.slot - b.slot })
	for _, h := range moving[:min(pairsAtOnce, len(moving))] {
		k.stop(h, ErrMoved)
	}
	return len(moving) > 0, len(moving) > pairsAtOnce
}

// settle notes what has returned, and forgets what is another's.
func (k *keeper) settle() {
	for slot, h := range k.slots {
		if h.phase == stopping && h.hasReturned() {
			h.phase = stopped
			h.drop()
		}
		if h.gone && !h.stale && h.phase >= stopped {
			delete(k.slots, slot)
			if h.again {
				k.anew = true
				k.poke()
			}
		}
	}
}

// takeUp hangs a slot that the database says is this member's on the session, and has its jobs
// read. The session is asked by the same stroke: one that was suspended since the row was read
// carries nothing.
func (k *keeper) takeUp(slot int, epoch int64) *holding {
	ctx, drop, err := k.session.Hold(k.values)
	if err != nil {
		k.anew = true
		return nil
	}
	h := &holding{k: k, slot: slot, epoch: epoch, drop: drop}
	h.ctx, h.end = context.WithCancelCause(ctx)
	context.AfterFunc(h.ctx, k.poke)
	k.slots[slot] = h
	k.dirty[slot] = true
	return h
}

// takeUpAgain goes on with what was stopped and is still this member's: the session lapsed and is
// connected again, or the slot is not to move after all. Nobody else can have had it, and nothing
// was sent that could yet give it away.
func (k *keeper) takeUpAgain() {
	for _, h := range k.slots {
		if h.phase == stopped && !h.stale && !h.gone && h.target == "" {
			k.takeUp(h.slot, h.epoch)
		}
	}
}

// finish ends all work on the group, gives back what has returned as it does, and waits for the rest.
func (k *keeper) finish(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	for _, h := range k.slots {
		k.stop(h, ErrStopped)
	}
	told := 0 // of so many slots the database knows that work has not returned
	for k.settle(); k.working() > 0; k.settle() {
		sleep(ctx, coalesce, nil)
		k.settle()
		if k.working() > 0 && k.session.Status() != heartbeat.Over {
			more := false
			if left := k.working(); left != told {
				var err error
				if more, err = k.giveSomeBack(ctx); err == nil && !more {
					told = left
				}
			}
			if !more {
				sleep(ctx, retryPause, k.pokes)
			}
		} else if k.working() > 0 {
			<-k.pokes
		}
	}
	if k.session.Status() == heartbeat.Over { // which frees what it has
		k.leave()
		<-k.Life.Done()
		return fmt.Errorf("group %q: %w", k.group, k.session.Err())
	}
	k.giveBackAll(ctx)
	return nil
}

// working is of how many slots work has not returned.
func (k *keeper) working() (n int) {
	for _, h := range k.slots {
		if h.phase < stopped {
			n++
		}
	}
	return n
}

// find finds the group.
func (k *keeper) find(ctx context.Context) error {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	g, err := Find(ctx, k.DB, k.group)
	if err == nil {
		k.obey = g.Defaults().Obey
	}
	return err
}

// bounded is a context for one statement.
func (k *keeper) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, k.Timeout)
}

// sleep waits for d, or for a ring, and says false when ctx has ended.
func sleep(ctx context.Context, d time.Duration, rings <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-rings:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
