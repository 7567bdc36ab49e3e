package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/coordd/coordd"
)

// ErrSuspended is why a held context ends, and why none is given, while the session's right
// has run out. It may be connected again.
var ErrSuspended = errors.New("the session is suspended")

// Hold hangs something on the session: the context that it returns ends at the moment at
// which the session is suspended, lost or left, with no I/O, and context.Cause says which.
// It ends with ctx as well.
//
// The caller calls release once its work has returned, and may call it again. Leave waits
// for that, so that nothing is given up while the work on it still runs. What was held does
// not come back when the session is connected again; hold it anew.
func (s *Session) Hold(ctx context.Context) (held context.Context, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.barred(); err != nil {
		return nil, nil, fmt.Errorf("member %q holds nothing: %w", s.cfg.Name, err)
	}
	held, cancel := context.WithCancelCause(ctx)
	h := &hold{cancel: cancel, released: make(chan struct{})}
	s.holds[h] = struct{}{}
	return held, func() { s.release(h) }, nil
}

// hold is one thing that hangs on the session.
type hold struct {
	cancel   context.CancelCauseFunc
	released chan struct{}
}

// barred says why the session carries nothing at this instant, or nil. It is called with mu
// held.
func (s *Session) barred() error {
	switch {
	case s.life.Err() != nil:
		return s.Err()
	case s.leaving:
		return ErrLeft
	case s.revoked:
		return coordd.ErrLost // why is known in a moment
	case s.now() >= s.validUntil:
		return ErrSuspended
	}
	return nil
}

func (s *Session) release(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, here := s.holds[h]; here {
		delete(s.holds, h)
		h.cancel(nil)
		close(h.released)
	}
}

// cut ends the contexts of all that is held. It is called with mu held.
func (s *Session) cut(why error) {
	for h := range s.holds {
		h.cancel(why)
	}
}

// awaitReleases waits until all that is held was released, or the session is lost, for d at the
// most, and says how many were not released.
func (s *Session) awaitReleases(d time.Duration) (still int) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		var next *hold
		s.mu.Lock()
		still = len(s.holds)
		for next = range s.holds {
			break
		}
		s.mu.Unlock()
		if next == nil {
			return 0
		}
		select {
		case <-next.released:
		case <-s.life.Done():
			return still
		case <-timer.C:
			return still
		}
	}
}

// Status is what a session is worth to its own process.
type Status string

// The statuses of a session. Over is final; [Session.Err] says why.
const (
	Connected Status = "connected" // it carries rights
	Suspended Status = "suspended" // its right has run out; a beat may yet connect it again
	Over      Status = "over"      // lost, or left
)

// Status is the session's status now.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch err := s.barred(); {
	case err == nil:
		return Connected
	case errors.Is(err, ErrSuspended):
		return Suspended
	}
	return Over
}

// States yields the session's status, and again whenever it has changed, until it is over
// or ctx ends. Who is slow sees the latest only.
func (s *Session) States(ctx context.Context) iter.Seq[Status] {
	return func(yield func(Status) bool) {
		for last := Status(""); ; {
			s.mu.Lock()
			changed := s.changed
			s.mu.Unlock()
			if now := s.Status(); now != last {
				last = now
				if !yield(now) || now == Over {
					return
				}
				continue
			}
			select {
			case <-changed:
			case <-s.life.Done():
			case <-ctx.Done():
				return
			}
		}
	}
}

// tell wakes those who wait for a change of status. It is called with mu held.
func (s *Session) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
	s.tellNews()
}

// Draining says whether this member was asked to hand over what it holds and take nothing
// new. It is as old as the latest look, a beat or so.
func (s *Session) Draining() bool { return s.draining.Load() }
