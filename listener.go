package coordd

import (
	"context"
	"sync"
)

// Listener hears that the database may have changed, sooner than by asking. It is a hint
// that shortens a wait and nothing more: whoever listens also looks from time to time, as a
// ring may be missing, late, or about nothing. Package pglisten has one for PostgreSQL.
type Listener interface {
	// Listen calls ring after each ring of a topic, until stop is called. Ring waits for
	// nothing.
	Listen(topic string, ring func()) (stop func())

	// Err says why nothing is heard at present; nil means that it is.
	Err() error
}

// Listen returns a channel that receives a value after a change: of one of the topics, of
// which the empty one is whatever is told by an event. It holds one value, so that several
// rings may arrive as one and none is lost between two waits. It is never closed; call stop
// when done with it. Without a Listener it hears of this process's own changes only.
func (db *DB) Listen(topics ...string) (rings <-chan struct{}, stop func()) {
	ear := make(chan struct{}, 1)
	ring := func() {
		select {
		case ear <- struct{}{}:
		default: // it has not taken the last ring yet, and looks after that
		}
	}
	var stops []func()
	for _, topic := range topics {
		stops = append(stops, db.bell.listen(topic, ring))
		if db.Listener != nil {
			stops = append(stops, db.Listener.Listen(topic, ring))
		}
	}
	return ear, func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// Hears says whether a ring of another process arrives at present.
func (db *DB) Hears() bool { return db.Listener != nil && db.Listener.Err() == nil }

// Ring wakes those who listen to a topic, in this process and, if the database has a way to
// do so, on whichever server. Call it after a commit and not in a transaction. An error says
// no more than that they may have to find out by themselves.
func (db *DB) Ring(ctx context.Context, topic string) error {
	db.bell.ring(topic)
	d, err := db.server.resolve(ctx, db.pool)
	if err != nil || d.WakeUp == "" {
		return err
	}
	_, err = db.Exec(ctx, d.WakeUp, topic)
	return err
}

// bell is heard within this process.
type bell struct {
	mu   sync.Mutex
	ears map[string]map[*ear]struct{} // by topic
}

type ear struct{ ring func() }

func (b *bell) listen(topic string, ring func()) (stop func()) {
	e := &ear{ring}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ears == nil {
		b.ears = map[string]map[*ear]struct{}{}
	}
	if b.ears[topic] == nil {
		b.ears[topic] = map[*ear]struct{}{}
	}
	b.ears[topic][e] = struct{}{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.ears[topic], e)
		if len(b.ears[topic]) == 0 {
			delete(b.ears, topic)
		}
	}
}

func (b *bell) ring(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := range b.ears[topic] {
		e.ring()
	}
}
