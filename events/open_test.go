package events

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

// openFor is how long a user leaves a transaction open. MariaDB waits 50 s for a lock unless told otherwise:
// after a minute whoever waits without end has been refused, also where nobody measures how long it took.
var openFor = time.Duration(dbtest.Runs(60)) * time.Second

var (
	// ordinary is more than anything takes that waits for nobody, also on a machine that is busy, and much less
	// than the transaction is open for.
	ordinary = dbtest.Stretch(10 * time.Second)

	ttl = dbtest.Stretch(4 * time.Second)
)

// A user who leaves a transaction open that has posted an event holds up nobody: members join, leave and
// die, other events come into the log and are seen. The user's own comes after the commit.
func TestE1AnOpenTransactionDelaysNobody(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		l := begin(t, dsn)
		defer l.end()
		user := dbtest.OpenPatient(t, dsn)
		tx, err := user.Pool().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if err := journal.Outbox(t.Context(), user.On(tx), about("slow")); err != nil {
			t.Fatal(err)
		}
		rounds, began := 0, time.Now()
		if product, _ := user.Product(t.Context()); product == "SQLite" {
			l.stalls()
		} else {
			for ; time.Since(began) < openFor; rounds++ {
				l.goesOn()
			}
		}
		t.Logf("%d rounds of life beside a transaction that was open for %v", rounds, time.Since(began))
		if err := tx.Commit(); err != nil {
			t.Fatalf("the user's commit: %v", err)
		}
		l.drains("slow")
		l.goesOn()
	})
}

// about is an event that its subject tells from others.
func about(subject string) journal.Event {
	return journal.Event{Topic: "open", Subject: subject, Action: "happened", Data: "{}"}
}

// life is what goes on in a database: two members that stay, others that come and go, and
// events that somebody watches.
type life struct {
	t    *testing.T
	dsn  string
	db   *coordd.DB
	stay []*heartbeat.Session
	seen chan Event // closed when the watch has ended
	stop context.CancelFunc
}

func begin(t *testing.T, dsn string) *life {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &life{t: t, dsn: dsn, db: dbtest.Migrated(t, dsn), seen: make(chan Event, 10000), stop: stop}
	for _, name := range []string{"a", "b"} {
		l.stay = append(l.stay, l.joins(dbtest.Open(t, dsn), name))
	}
	watching := dbtest.Open(t, dsn)
	go func() {
		defer close(l.seen)
		last := int64(0)
		for e, err := range quick.Watch(ctx, watching, 0) {
			if last++; err != nil || e.Revision != last {
				t.Errorf("the watch: got %v and %v, want revision %d", e, err, last)
				return
			}
			l.seen <- e
		}
	}()
	return l
}

// end ends all that goes on. Those who were to stay have stayed.
func (l *life) end() {
	for _, s := range l.stay {
		if err := s.Err(); err != nil {
			l.t.Errorf("%s: %v", s.Name(), err)
		}
		s.Leave(l.t.Context())
	}
	l.stop()
	for range l.seen { // until the watch has ended
	}
}

// within fails the test if something fails, or takes longer than it may.
func (l *life) within(bound time.Duration, what string, do func(ctx context.Context) error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), bound)
	defer cancel()
	began := time.Now()
	if err := do(ctx); err != nil {
		l.t.Fatalf("%s: %v after %v, want it within %v", what, err, time.Since(began), bound)
	}
	if took := time.Since(began); took > bound {
		l.t.Fatalf("%s took %v, want %v at the most", what, took, bound)
	}
}

// sees waits until the watch has told of something.
func (l *life) sees(bound time.Duration, subject, action string) {
	l.t.Helper()
	l.within(bound, subject+" "+action, func(ctx context.Context) error {
		for {
			select {
			case e, goesOn := <-l.seen:
				if !goesOn {
					return errors.New("the watch has ended")
				}
				if e.Subject == subject && e.Action == action {
					return nil
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

// goesOn is one round of everything.
func (l *life) goesOn() {
	l.t.Helper()
	s := l.joins(l.db, "guest")
	l.sees(ordinary, "guest", "joined")
	l.within(ordinary, "draining a member", func(ctx context.Context) error { return heartbeat.Drain(ctx, l.db, s.ID()) })
	l.within(ordinary, "appending an event", func(ctx context.Context) error {
		return l.db.Tx(ctx, func(tx coordd.Queries) error { return journal.Append(ctx, tx, about("appended")) })
	})
	l.sees(ordinary, "appended", "happened")
	l.within(ordinary, "posting an event", func(ctx context.Context) error {
		return l.db.Tx(ctx, func(tx coordd.Queries) error { return journal.Outbox(ctx, tx, about("posted")) })
	})
	l.drains("posted")
	l.within(ordinary, "purging members", func(ctx context.Context) error {
		_, err := heartbeat.Purge(ctx, l.db, time.Hour)
		return err
	})
	l.within(ordinary, "leaving", s.Leave)
	l.sees(ordinary, "guest", "left")
	l.dies()
}

func (l *life) joins(db *coordd.DB, name string) (s *heartbeat.Session) {
	l.t.Helper()
	l.within(ordinary, "joining", func(ctx context.Context) (err error) {
		s, err = heartbeat.Join(ctx, db, heartbeat.Config{Name: name, TTL: ttl})
		return err
	})
	return s
}

// drains moves what is in the outbox into the log.
func (l *life) drains(subject string) {
	l.t.Helper()
	l.within(ordinary, "draining the outbox", func(ctx context.Context) error {
		moved, err := journal.Drain(ctx, l.db)
		if err == nil && moved != 1 {
			l.t.Errorf("drained: got %d events, want that about %q alone", moved, subject)
		}
		return err
	})
	l.sees(ordinary, subject, "happened")
}

// dies lets a member crash, and waits until another has declared it dead.
func (l *life) dies() {
	l.t.Helper()
	db, tap := dbtest.OpenTapped(l.t, l.dsn)
	s := l.joins(db, "victim")
	tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
	if err := s.Leave(l.t.Context()); err == nil {
		l.t.Fatal("a farewell that nobody can hear: got no error, want one")
	}
	db.Pool().Close()
	promised := ttl + ttl/100 + max(200*time.Millisecond, ttl/20) + ttl/3 // that is M2
	l.sees(promised+ordinary, "victim", "died")
}

// stalls holds what cannot be helped where there is one writer: who writes is kept waiting by an open
// transaction, and told why. Who reads is not.
func (l *life) stalls() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Second)
	defer cancel()
	err := l.db.Tx(ctx, func(tx coordd.Queries) error { return journal.Append(ctx, tx, about("appended")) })
	if !errors.Is(err, coordd.ErrContended) {
		l.t.Fatalf("an event beside an open transaction on SQLite: got %v, want %v", err, coordd.ErrContended)
	}
	l.within(ordinary, "reading members", func(ctx context.Context) error {
		_, err := heartbeat.Members(ctx, l.db)
		return err
	})
	l.within(ordinary, "reading the log", func(ctx context.Context) error {
		_, err := List(ctx, l.db, 0, 10)
		return err
	})
}
