package heartbeat

import (
	"context"
	"fmt"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// stmtLost asks what has become of a row that took no beat.
const stmtLost = `select ` + journal.HistoryFields + `, coalesce(b.state, '')
	from ` + journal.HistoryTables + `
	left join coordd_heartbeats b on b.member_id = ?`

// lose ends the session, which took no beat: its right at once, and the rest once it is known
// why.
func (s *Session) lose() {
	valid := s.revoke()
	var now journal.History
	var state State
	err := s.insist(func(ctx context.Context) error {
		return s.db.Get(ctx, append(now.Fields(), &state), stmtLost, s.id)
	})
	switch {
	case err != nil:
		s.over(fmt.Errorf("%w: its row takes no beats", coordd.ErrLost))
	case now.Number() != s.history.Number() || !now.Intact():
		s.historyLost(now, "the database's history has changed")
	case state == "" && valid && !now.Lags(): // rows are deleted only long after their end
		s.historyLost(now, "its row is gone, and nobody may have deleted it")
	case state == "":
		s.over(fmt.Errorf("%w: its row is gone from this database", coordd.ErrLost))
	default:
		s.over(fmt.Errorf("%w: its row says %s", coordd.ErrLost, state))
	}
}

// revoke ends the right, and all that hangs on it, at once and for good. It says whether there
// was one.
func (s *Session) revoke() (valid bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	valid = now < s.validUntil
	s.validUntil, s.revoked = min(now, s.validUntil), true
	s.cut(coordd.ErrLost)
	return valid
}

// over ends the session for good. The first reason counts.
func (s *Session) over(why error) {
	if s.life.Err() == nil {
		s.log.Warn("session lost", "reason", why)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(fmt.Errorf("session %s of %q: %w", s.id, s.cfg.Name, why))
	s.cut(coordd.ErrLost)
}

// enterHistory learns in which history of the database the session is to live.
func (s *Session) enterHistory(ctx context.Context) error {
	now, renewed, err := journal.EnterHistory(ctx, s.db)
	if renewed {
		s.log.Warn("the database's history has changed since anybody was here; nothing is granted until all rights of the old one have run out")
	}
	s.history = now
	return err
}

// historyLost ends the session because its database has lost its history, and records that
// for all others, if nobody has done it yet: each record begins at a higher revision, so a
// history that began later than this session's is the proof that somebody has.
func (s *Session) historyLost(now journal.History, why string) {
	s.revoke()
	if now.Number() == s.history.Number() || now.Since <= s.history.Since && !now.Lags() {
		s.recordLoss(now, why)
	}
	s.over(fmt.Errorf("%w: %w: %s", coordd.ErrLost, coordd.ErrHistoryLost, why))
}

// insist tries for a TTL, also while the session is left: who joins next may have no way to
// notice what this session has noticed.
func (s *Session) insist(do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.life), s.cfg.TTL)
	defer cancel()
	err := do(ctx)
	for err != nil && wait(ctx, s.cfg.Beat/20, nil) {
		err = do(ctx)
	}
	return err
}

func (s *Session) recordLoss(now journal.History, why string) {
	s.mu.Lock()
	seen, longest := s.revision, s.longest
	s.mu.Unlock()
	var renewed bool
	err := s.insist(func(ctx context.Context) (err error) {
		renewed, err = journal.Renew(ctx, s.db, now, seen, longest)
		return err
	})
	switch {
	case err != nil:
		s.log.Error("cannot record that the database has lost its history: nothing keeps others from granting what is held", "reason", why, "error", err)
	case renewed:
		journal.Ring(context.WithoutCancel(s.life), s.db)
		s.log.Warn("the database has lost its history; nothing is granted until all rights of the old one have run out", "reason", why)
	}
}

// A quarantine is watched by everybody, and ended by who has watched it for long enough.
type quarantine struct {
	number int64         // of the history
	since  time.Duration // when it was first seen
}

// watchQuarantine ends the quarantine of the history once every right of the old one has run
// out: each came from a beat that was sent before the new one was recorded, as no other
// beat finds it, and so before it was first seen here. What the database says of the longest
// TTL may be from before that was raised, so what was known here counts too.
func (s *Session) watchQuarantine(received time.Duration, now journal.History) error {
	if !now.Quarantined() {
		return nil
	}
	if s.quarantine.number != now.Number() {
		s.quarantine = quarantine{now.Number(), received}
		return nil
	}
	ctx, cancel := context.WithTimeout(s.life, s.cfg.TTL)
	defer cancel()
	if err := s.readMaxTTL(ctx); err != nil {
		return err
	}
	if s.now()-s.quarantine.since < window(s.longestTTL()) {
		return nil
	}
	trusted, err := journal.Trust(ctx, s.db, now)
	if trusted {
		journal.Ring(ctx, s.db)
		s.log.Info("the database's new history is trusted: rights are granted again")
	}
	return err
}
