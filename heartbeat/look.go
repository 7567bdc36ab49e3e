package heartbeat

import (
	"context"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

const (
	stmtLook = `select member_id, seq, ttl_ms, state from coordd_heartbeats
		where state in ('alive', 'draining', 'condemned')`

	// stmtDeclareDead ends a session that was watched not to beat. 0 rows: it has beaten
	// meanwhile, or has ended already.
	stmtDeclareDead = `update coordd_heartbeats set state = 'dead', beat_us = {now}
		where member_id = ? and seq = ? and state in ('alive', 'draining', 'condemned')`
)

// looks watches the others for as long as the session lives.
func (s *Session) looks() {
	for pause := time.Duration(0); wait(s.life, pause, nil); {
		pause = s.look()
	}
}

// look reads all beats, declares dead whose time has come, and returns when to look again.
func (s *Session) look() time.Duration {
	sent := s.now()
	pulses, err := s.pulses()
	if err != nil {
		return s.lookFailed("a look at the others failed", err)
	}
	now := s.now()
	stalled, failed := s.health(now)
	if failed {
		s.observer.restart()
	}
	for _, p := range s.observer.look(sent, now, stalled, pulses) {
		if err := s.declareDead(p); err != nil {
			return s.lookFailed("declaring "+p.id+" dead failed", err)
		}
	}
	s.blind = false
	return s.observer.next(s.keepPace(pulses)) - s.now()
}

// lookFailed forgets what was seen: only time in which this process was itself healthy
// counts.
func (s *Session) lookFailed(what string, err error) time.Duration {
	s.observer.restart()
	if s.life.Err() != nil {
		return 0 // it failed because the session ended
	}
	s.mu.Lock()
	s.stats.LookFailures++
	s.mu.Unlock()
	if !s.blind {
		s.blind = true
		s.log.Warn(what+"; until a look succeeds nobody is watched", "error", err)
	}
	return s.cfg.Beat / 4
}

// health says how this process's own beats have fared since the previous look: the longest
// time for which none was answered, and whether one failed.
func (s *Session) health(now time.Duration) (stalled time.Duration, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stalled, failed = max(s.stalled, now-s.acked), s.failed
	s.stalled, s.failed = 0, s.failing
	return stalled, failed
}

// pulses reads the beats of all others that live.
func (s *Session) pulses() ([]pulse, error) {
	ctx, cancel := context.WithTimeout(s.life, s.cfg.Timeout)
	defer cancel()
	type row struct {
		pulse
		ms    int64
		state State
	}
	rows, err := coordd.All(ctx, s.db.Queries, func(r *row) []any { return []any{&r.id, &r.seq, &r.ms, &r.state} }, stmtLook)
	others := make([]pulse, 0, len(rows))
	for _, r := range rows {
		if r.id == s.id {
			s.draining.Store(r.state == Draining)
		} else {
			others = append(others, pulse{id: r.id, seq: r.seq, ttl: time.Duration(r.ms) * time.Millisecond})
		}
	}
	return others, err
}

// leastPace bounds what a row with a tiny TTL can make everybody do.
const leastPace = 100 * time.Millisecond

// keepPace makes this member beat and look three times in the shortest TTL of all, as
// less often it could not watch the one that bears it.
func (s *Session) keepPace(others []pulse) time.Duration {
	pace := s.cfg.Beat
	for _, p := range others {
		pace = min(pace, max(p.ttl/3, leastPace))
	}
	if before := s.pace.Swap(int64(pace)); int64(pace) < before {
		select {
		case s.hurry <- struct{}{}: // the next beat is due sooner than its loop thinks
		default:
		}
	}
	return pace
}

func (s *Session) declareDead(p pulse) error {
	ctx, cancel := context.WithTimeout(s.life, s.cfg.TTL) // a few statements, and nothing waits for it
	defer cancel()
	died, err := transition(ctx, s.db, p.id, "died", stmtDeclareDead, p.id, p.seq)
	if died {
		journal.Ring(ctx, s.db)
		s.log.Info("declared dead", "other", p.id, "seq", p.seq)
	}
	return err
}
