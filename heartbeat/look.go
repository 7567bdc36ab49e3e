package heartbeat

import (
	"context"
	"time"

	"github.com/coordd/coordd"
)

const (
	stmtLook = `select member_id, seq, ttl_ms from coordd_heartbeats where state = 'alive'`

	// stmtDeclareDead ends a session that was watched not to beat. 0 rows: it has beaten
	// meanwhile, or has ended already.
	stmtDeclareDead = `update coordd_heartbeats set state = 'dead', beat_us = {now}
		where member_id = ? and seq = ? and state = 'alive'`
)

// looks watches the others for as long as the session lives.
func (s *Session) looks() {
	for pause := time.Duration(0); wait(s.life, pause); {
		pause = s.look()
	}
}

// look reads all beats, declares dead whose time has come, and returns when to look again.
func (s *Session) look() time.Duration {
	pulses, err := s.pulses()
	if err != nil {
		s.observer.restart()
		return s.cfg.Beat / 4
	}
	now := s.now()
	s.mu.Lock()
	beat, failures := s.sent, s.stats.Failures
	s.mu.Unlock()
	if failures != s.excused {
		s.observer.restart()
		s.excused = failures
	}
	for _, p := range s.observer.look(now, beat, pulses) {
		if err := s.declareDead(p); err != nil {
			s.observer.restart()
			break
		}
	}
	pace := s.keepPace(pulses)
	return s.observer.next(pace) - s.now()
}

// pulses reads the beats of all others that live.
func (s *Session) pulses() ([]pulse, error) {
	ctx, cancel := context.WithTimeout(s.life, s.cfg.Timeout)
	defer cancel()
	type row struct {
		pulse
		ms int64
	}
	rows, err := coordd.All(ctx, s.db.Queries, func(r *row) []any { return []any{&r.id, &r.seq, &r.ms} }, stmtLook)
	others := make([]pulse, 0, len(rows))
	for _, r := range rows {
		if r.id != s.id {
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
	s.pace.Store(int64(pace))
	return pace
}

func (s *Session) declareDead(p pulse) error {
	ctx, cancel := context.WithTimeout(s.life, s.cfg.Timeout)
	defer cancel()
	changed, err := s.db.Exec(ctx, stmtDeclareDead, p.id, p.seq)
	if err == nil && changed == 1 {
		s.log.Info("declared dead", "other", p.id, "seq", p.seq)
	}
	return err
}
