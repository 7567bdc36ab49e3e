package heartbeat

import (
	"context"
	"time"

	"github.com/coordd/coordd"
)

// Seam is by what coordd's own packages keep rights beside a session.
type Seam struct {
	DB      *coordd.DB
	TTL     time.Duration
	Beat    time.Duration
	Timeout time.Duration   // of a statement
	History int64           // the number of the database's history, that a grant asks for
	Life    context.Context // ends when the session is lost or left

	// Go runs work until the session is over; Leave waits for it. It does nothing once the
	// session is being ended.
	Go func(work func(ctx context.Context))

	// News returns a channel that is closed when a look has seen another revision, or the
	// status of the session has changed.
	News func() <-chan struct{}
}

// Beside returns what a package keeps beside the session: what make has made at the first
// call with this key.
func (s *Session) Beside(key any, make func(Seam) any) any {
	s.besideMu.Lock()
	defer s.besideMu.Unlock()
	kept, here := s.beside[key]
	if !here {
		kept = make(Seam{
			DB: s.db, TTL: s.cfg.TTL, Beat: s.cfg.Beat, Timeout: s.cfg.Timeout, History: s.history.Number(), Life: s.life,
			Go: s.run, News: s.newsChannel,
		})
		s.beside[key] = kept
	}
	return kept
}

// run is Seam.Go.
func (s *Session) run(work func(ctx context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ending {
		s.loops.Go(func() { work(s.life) })
	}
}

func (s *Session) newsChannel() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.news
}

// tellNews wakes those who wait for news. It is called with mu held.
func (s *Session) tellNews() {
	close(s.news)
	s.news = make(chan struct{})
}
