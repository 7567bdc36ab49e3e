package heartbeat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

const (
	stmtMaxTTL = `select value from coordd_meta where name = 'max_ttl'`

	stmtEntered = `select count(*) from coordd_heartbeats where member_id = ?`

	stmtEnterMember = `insert into coordd_members (id, name, address, version, labels, process, kind, started_us)
		values (?, ?, ?, ?, ?, ?, ?, {now})`

	stmtEnterHeartbeat = `insert into coordd_heartbeats (member_id, seq, state, ttl_ms, beat_us)
		values (?, 1, 'alive', ?, {now})`

	// stmtBeat renews the session. 0 rows: the session is lost, whatever else its row may
	// say. It does not compare seq, as a beat of our own that was sent before and executed
	// late would then look like a loss.
	stmtBeat = `update coordd_heartbeats set seq = seq + 1, beat_us = {now}, load_json = ?
		where member_id = ? and state in ('alive', 'draining')
		and ` + journal.InHistory

	// These end the session. 0 rows: it had ended before, or this is said twice.
	stmtLeave = `update coordd_heartbeats set state = 'left', beat_us = {now}
		where member_id = ? and state in ('alive', 'draining')`
	stmtRestart = `update coordd_heartbeats set state = 'restarting', beat_us = {now}
		where member_id = ? and state in ('alive', 'draining')`
)

// enter writes the member's rows. They are written once however often it asks: the id is
// its own, and before it asks again it looks.
func (s *Session) enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.TTL)
	defer cancel()
	if err := s.db.CheckSchema(ctx); err != nil {
		return err
	}
	if err := s.checkMaxTTL(ctx); err != nil {
		return err
	}
	if err := s.enterHistory(ctx); err != nil {
		return err
	}
	if err := s.lane.Open(ctx); err != nil {
		return err
	}
	s.sent = s.now()
	for unknown := error(nil); ; {
		err := s.lane.Tx(ctx, func(tx coordd.Queries) error { return s.insert(ctx, tx) })
		if err == nil {
			s.acked, s.validUntil = s.now(), s.sent+right(s.cfg.TTL)
			return nil
		}
		if errors.Is(err, coordd.ErrUnknownOutcome) {
			unknown = err
		}
		// Once a commit may be under way, another error may be its doing: a duplicate key.
		if unknown == nil {
			return err
		}
		if !wait(ctx, s.cfg.Beat/20, nil) {
			return unknown
		}
	}
}

func (s *Session) checkMaxTTL(ctx context.Context) error {
	if err := s.readMaxTTL(ctx); err != nil {
		return err
	}
	if limit := s.longestTTL(); s.cfg.TTL > limit {
		return fmt.Errorf("%w: TTL %v is over this database's limit of %v (max_ttl in coordd_meta, in milliseconds)", coordd.ErrInvalid, s.cfg.TTL, limit)
	}
	return nil
}

// readMaxTTL learns the longest TTL that a session on this database may have.
func (s *Session) readMaxTTL(ctx context.Context) error {
	var most int64
	err := s.db.Get(ctx, []any{&most}, stmtMaxTTL)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: coordd_meta has no max_ttl (insert it: 15000 is the default)", coordd.ErrSchema)
	}
	s.sawTTL(time.Duration(most) * time.Millisecond)
	return err
}

// sawTTL remembers that a session may have such a TTL.
func (s *Session) sawTTL(ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.longest = max(s.longest, ttl)
}

// longestTTL is the longest that a session may have, as far as was seen here.
func (s *Session) longestTTL() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.longest
}

func (s *Session) insert(ctx context.Context, tx coordd.Queries) error {
	var entered int
	if err := tx.Get(ctx, []any{&entered}, stmtEntered, s.id); err != nil || entered > 0 {
		return err
	}
	c := s.cfg
	if _, err := tx.Exec(ctx, stmtEnterMember, s.id, c.Name, c.Address, c.Version, encodeLabels(c.Labels), s.process, c.Kind); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, stmtEnterHeartbeat, s.id, c.TTL.Milliseconds()); err != nil {
		return err
	}
	return record(ctx, tx, s.id, "joined")
}

// beats renews the session for as long as it lives, and says goodbye if it was left.
func (s *Session) beats() {
	defer s.lane.Close()
	for wait(s.life, s.untilBeat(), s.hurry) {
		s.beat()
	}
	s.mu.Lock()
	bye := s.farewell
	s.mu.Unlock()
	if errors.Is(s.Err(), ErrLeft) && bye.stmt != "" {
		s.left = s.sayGoodbye(bye)
	}
}

// untilBeat is the pause before the next beat. One that failed is sent again at once: the
// little that it waits keeps a database that refuses everybody from being stormed, and a
// session that has nothing to save any more waits for longer.
func (s *Session) untilBeat() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	pause := s.cfg.Beat / 20
	switch {
	case !s.failing:
		return s.sent + time.Duration(s.pace.Load()) - s.now()
	case s.suspended:
		pause = s.cfg.Beat / 2
	}
	return pause/2 + rand.N(pause)
}

// beat renews the session once. Leaving does not cut it off, as that would cost the
// connection that says goodbye.
func (s *Session) beat() {
	sent := s.now() // before it waits for anything
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.life), s.cfg.Timeout)
	defer cancel()
	changed, err := s.lane.Exec(ctx, stmtBeat, s.load.Load(), s.id, s.history.Number())
	switch {
	case s.life.Err() != nil:
	case err != nil:
		s.missed(err)
	case changed == 0:
		s.lose()
	default:
		s.renew(sent)
	}
}

// renew counts the right from the moment at which the beat was sent. An answer that comes
// later than that right lasts is worth nothing. What was held at the deadline ends with
// it, also where nobody has noticed it before this answer.
func (s *Session) renew(sent time.Duration) {
	s.expire()
	s.mu.Lock()
	now := s.now()
	if s.revoked {
		s.sent, s.failing = sent, false // it keeps its pace until it is over
		s.mu.Unlock()
		return
	}
	s.stalled = max(s.stalled, now-s.acked)
	s.sent, s.acked, s.validUntil, s.failing = sent, now, sent+right(s.cfg.TTL), false
	s.stats.Beats++
	s.stats.Latency = now - sent
	news := s.suspended && now < s.validUntil
	s.suspended = s.suspended && !news
	if news {
		s.tell()
	}
	s.mu.Unlock()
	if news {
		s.log.Info("connected again: nobody had declared it dead")
	}
}

func (s *Session) missed(err error) {
	s.mu.Lock()
	news := !s.failing
	s.failing, s.failed = true, true
	s.stats.Failures++
	s.mu.Unlock()
	if news {
		s.log.Warn("a beat failed; it is tried again until the session is suspended, and then on", "error", err)
	}
}

func (s *Session) sayGoodbye(bye farewell) (err error) {
	for range 2 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.life), s.cfg.Timeout)
		_, err = transition(ctx, s.lane, s.cfg.Timeout, s.id, bye.action, bye.stmt, s.id)
		cancel()
		if err == nil {
			journal.Ring(context.WithoutCancel(s.life), s.db)
			s.log.Info(bye.action)
			return nil
		}
	}
	return fmt.Errorf("leave as %q: %w; others will see it dead in %v", s.cfg.Name, err, window(s.cfg.TTL))
}
