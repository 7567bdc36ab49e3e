package assign

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/coordd/coordd/heartbeat"
)

// Change is what has changed of the jobs of one slot that this member owns.
type Change struct {
	Slot     int
	Epoch    int64
	Released []string        // the keys of jobs to be ended, first of all
	Acquired []Job           // jobs to be begun then; one that is in both was changed
	Context  context.Context // ends when the slot is not this member's any more; context.Cause says why

	done func()
}

// Done says that what was to be released has ended. Nobody else is given it before. It may be
// called from any goroutine, and more than once.
func (c Change) Done() { c.done() }

// Changes serves a group as [Run] does, for one loop that looks after many jobs:
//
//	for change, err := range assign.Changes(ctx, session, assign.Config{Group: "pollers"}) {
//		if err != nil {
//			return err
//		}
//		poller.Stop(change.Released)
//		poller.Start(change.Acquired)
//		change.Done()
//	}
//
// It tells what this member has acquired and what it is to release, those of one slot in their order. A slot
// that is to move is held until all of its changes are Done that release something, so call Done of
// each. When a slot's context ends so does its work, at once: the session may have ended it,
// which waits for nobody.
//
// It ends when ctx has ended and all is released, or with the one error that [Run] would return.
// Who leaves the loop says that nothing runs any more.
func Changes(ctx context.Context, s *heartbeat.Session, cfg Config) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		b := &batches{ready: make(chan struct{}, 1), parcels: map[*holding]*parcel{}}
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- serve(ctx, s, cfg.withDefaults(), b) }()
		told := false
		defer func() {
			cancel()
			b.abandon()
			if !told {
				<-ended
			}
		}()
		for {
			for c, some := b.next(); some; c, some = b.next() {
				if !yield(c, nil) {
					return
				}
			}
			select {
			case <-b.ready:
			case err := <-ended:
				told = true
				if err != nil {
					yield(Change{}, err)
				}
				return
			}
		}
	}
}

// batches are crews that only tell.
type batches struct {
	ready chan struct{} // something is to be told

	mu        sync.Mutex
	parcels   map[*holding]*parcel
	queue     []*parcel // those with something to tell, in their order
	abandoned bool
}

// parcel is what is to be told of one slot.
type parcel struct {
	h       *holding
	have    map[string]uint64 // what was told, by key: a digest of the rest
	want    []Job
	queued  bool
	open    int  // changes that were told, release something and are not Done
	stopped bool // all is to be released
	ended   bool // and has been
}

func digest(j Job) uint64 {
	d := xxhash.New()
	_, _ = d.WriteString(j.Payload)
	for _, k := range slices.Sorted(maps.Keys(j.Labels)) {
		_, _ = d.WriteString("\x00" + k + "\x00" + j.Labels[k])
	}
	return d.Sum64()
}

func (b *batches) set(h *holding, jobs []Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.parcels[h]
	if p == nil {
		p = &parcel{h: h, have: map[string]uint64{}}
		b.parcels[h] = p
	}
	if !p.stopped {
		p.want = jobs
		b.enqueue(p)
	}
}

func (b *batches) stop(h *holding) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.parcels[h]
	if p == nil {
		p = &parcel{h: h}
		b.parcels[h] = p
	}
	if p.stopped {
		return
	}
	p.stopped, p.want = true, nil
	if len(p.have) > 0 {
		b.enqueue(p)
	}
	b.end(p)
}

// end says that nothing of a slot runs any more, once that is so. It is called with mu held.
func (b *batches) end(p *parcel) {
	if p.stopped && !p.ended && (b.abandoned || len(p.have) == 0 && p.open == 0) {
		p.ended = true
		delete(b.parcels, p.h)
		p.h.returned()
	}
}

// enqueue is called with mu held.
func (b *batches) enqueue(p *parcel) {
	if !p.queued {
		p.queued = true
		b.queue = append(b.queue, p)
	}
	select {
	case b.ready <- struct{}{}:
	default: // it has not been taken yet
	}
}

// next is the next change to be told, if there is one.
func (b *batches) next() (c Change, some bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) > 0 {
		p := b.queue[0]
		b.queue = b.queue[1:]
		p.queued = false
		if c, some := b.change(p); some {
			return c, true
		}
	}
	return Change{}, false
}

// change compares what was told of a slot with what is so. It is called with mu held.
func (b *batches) change(p *parcel) (c Change, some bool) {
	c = Change{Slot: p.h.slot, Epoch: p.h.epoch, Context: p.h.ctx, done: func() {}}
	missing := maps.Clone(p.have)
	for _, j := range p.want {
		sum := digest(j)
		delete(missing, j.Key)
		had, was := p.have[j.Key]
		switch {
		case was && had == sum:
			continue
		case was:
			c.Released = append(c.Released, j.Key)
		}
		p.have[j.Key] = sum
		c.Acquired = append(c.Acquired, j)
	}
	for key := range missing {
		delete(p.have, key)
		c.Released = append(c.Released, key)
	}
	p.want = nil
	slices.Sort(c.Released)
	if len(c.Released) > 0 {
		p.open++
		c.done = sync.OnceFunc(func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			p.open--
			b.end(p)
		})
	}
	return c, len(c.Released)+len(c.Acquired) > 0
}

// abandon takes all for released.
func (b *batches) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.abandoned = true
	for _, p := range b.parcels {
		p.have, p.want = nil, nil
		b.end(p)
	}
}
