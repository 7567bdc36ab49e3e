//go:build linux || darwin || freebsd || openbsd

package child

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/coordd/coordd/internal/clock"
)

// guard does what the supervisor should have done, once that is overdue.
func (p *Process) guard(ctx context.Context) {
	ended := ctx.Done()
	var killing since
	for clean := 0; !closed(p.reaped); {
		now := clock.SinceBoot()
		due := p.due()
		if now >= due {
			killing.round(now)
			alive := p.kill()
			if clean++; len(alive) > 0 {
				clean = 0
			}
			switch {
			case clean == 2: // one reading of /proc may miss what changes its parent meanwhile
				_ = p.supervisor.Process.Kill() // fails where it has just ended
			case len(alive) > 0 && p.late(killing):
				p.finish(undead(alive))
			}
			due = now + pace
		}
		timer := time.NewTimer(nap(now, due))
		select {
		case <-timer.C:
		case <-ended:
			p.Stop()
			ended = nil
		case <-p.over:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

func undead(alive []int) Result {
	return Result{Stopped: true, Err: fmt.Errorf("%w: %v", ErrAlive, alive)}
}

// due is when the wrapper acts itself.
func (p *Process) due() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := never
	if p.until != 0 {
		at = p.until - lead/2
	}
	if p.stopAt != 0 {
		at = min(at, later(p.stopAt, p.grace, time.Second))
	}
	return at
}

// pace is the pause between two rounds of the wrapper's killing.
const pace = 10 * time.Millisecond

// patience is how long what was killed may take to die on a busy machine before that is told as
// a failure.
const patience = time.Second

// since is when a killing began that has gone on until its latest round: where this process stood still, what it
// killed may have stood still as well.
type since struct{ began, latest time.Duration }

func (s *since) round(now time.Duration) {
	if s.latest == 0 || now > s.latest+patience {
		s.began = now
	}
	s.latest = now
}

// late says that the instant has passed, and that what is alive still has been killed for some time since.
func (p *Process) late(killing since) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.until != 0 && killing.latest >= later(max(killing.began, p.until), patience)
}

// kill kills everything below the supervisor, and says what it has found alive.
func (p *Process) kill() (alive []int) {
	p.mu.Lock()
	p.killing = true
	pid := p.pid
	p.mu.Unlock()
	alive = killBelow(p.supervisor.Process.Pid, pid)
	slices.Sort(alive)
	return alive
}

// later is an instant some time after another; a time without end has none.
func later(at time.Duration, by ...time.Duration) time.Duration {
	for _, d := range by {
		at += min(max(0, d), never-at)
	}
	return at
}

// nap is how long to sleep for an instant.
func nap(now, due time.Duration) time.Duration { return max(time.Millisecond, min(tick, due-now)) }
