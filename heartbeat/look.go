package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

const (
	// stmtLook reads all who live, and with each of them the history. 0 rows: this member
	// lives no more, as its next beat will tell.
	stmtLook = `select ` + journal.HistoryFields + `, b.member_id, b.seq, b.ttl_ms, b.state
		from ` + journal.HistoryTables + `
		join coordd_heartbeats b on b.state in ('alive', 'draining', 'condemned')`

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
	sent, least := s.now(), s.leastSeq()
	v, err := s.view()
	if err != nil {
		return s.lookFailed("a look at the others failed", err)
	}
	now := s.now()
	if why := s.missing(v, least); why != "" {
		s.historyLost(v.history, why)
		return 0
	}
	stalled, failed := s.health(now)
	if failed {
		s.observer.restart()
	}
	var errs []error
	for _, p := range s.observer.look(sent, now, stalled, v.others) {
		errs = append(errs, s.declareDead(p))
	}
	if err := errors.Join(errs...); err != nil {
		return s.lookFailed("declaring others dead failed", err)
	}
	if err := s.watchQuarantine(now, v.history); err != nil {
		return s.lookFailed("ending the quarantine of the database's history failed", err)
	}
	s.blind = false
	return s.observer.next(s.keepPace(v.others)) - s.now()
}

// leastSeq is what this member's row must have reached: one when it joined, and one more with
// each beat that was answered.
func (s *Session) leastSeq() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 1 + s.stats.Beats
}

// missing says what this member knows to be committed and does not find, or nothing.
func (s *Session) missing(v view, least int64) (what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(v.others) == 0 && v.seq == 0:
		return "" // nothing was read: its next beat will tell
	case v.history.Number() != s.history.Number() || !v.history.Intact():
		return "the database's history has changed"
	case v.history.Lags():
		return ""
	case v.seq != 0 && v.seq < least:
		return fmt.Sprintf("beat %d was answered, and its row knows of %d", least, v.seq)
	case v.history.Revision < s.revision:
		return fmt.Sprintf("revision %d was seen, and the newest is %d", s.revision, v.history.Revision)
	}
	if s.revision != v.history.Revision {
		s.revision = v.history.Revision
		s.tellNews()
	}
	return ""
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

// view is what a look has found.
type view struct {
	history journal.History
	seq     int64   // this member's own; 0: it is not among the living
	others  []pulse // the beats of all others that live
}

func (s *Session) view() (v view, err error) {
	ctx, cancel := context.WithTimeout(s.life, s.cfg.Timeout)
	defer cancel()
	type row struct {
		pulse
		history journal.History
		ms      int64
		state   State
	}
	rows, err := coordd.All(ctx, s.db.Queries, func(r *row) []any {
		return append(r.history.Fields(), &r.id, &r.seq, &r.ms, &r.state)
	}, stmtLook)
	for _, r := range rows {
		v.history = r.history
		if r.id == s.id {
			v.seq = r.seq
			s.draining.Store(r.state == Draining)
		} else {
			p := pulse{id: r.id, seq: r.seq, ttl: time.Duration(r.ms) * time.Millisecond}
			v.others = append(v.others, p)
			s.sawTTL(p.ttl)
		}
	}
	return v, err
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

// declareDead declares one member dead. Where others keep its row locked, or nothing is answered
// in time, that is no reason to watch the rest anew: this process's own beats and looks tell
// whether it is healthy. The member itself is watched anew, so that it is not in the way of each
// look.
func (s *Session) declareDead(p pulse) error {
	ctx, cancel := context.WithTimeout(s.life, s.cfg.TTL) // a few statements, and nothing waits for it
	defer cancel()
	died, err := transition(ctx, s.db, s.cfg.Timeout, p.id, "died", stmtDeclareDead, p.id, p.seq)
	switch {
	case died:
		journal.Ring(ctx, s.db)
		s.log.Info("declared dead", "other", p.id, "seq", p.seq)
	case errors.Is(err, coordd.ErrContended), errors.Is(err, coordd.ErrSlow):
		s.observer.forget(p.id)
		s.mu.Lock()
		s.stats.LookFailures++
		s.mu.Unlock()
		s.log.Warn("cannot declare dead who is; it is watched anew", "other", p.id, "error", err)
	case err != nil:
		return fmt.Errorf("%s: %w", p.id, err)
	}
	return nil
}
