package pglisten

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dialect"
)

// ErrDeaf says that LISTEN was accepted and yet nothing that the pool sent was heard.
var ErrDeaf = errors.New("a notification sent through the pool was not heard: connect straight to the server and database of the pool, and not through a pooler in transaction mode (PgBouncer)")

var errNotYet = errors.New("it has not been run")

// Listener is a [coordd.Listener] on PostgreSQL. It is safe for concurrent use.
type Listener struct {
	db   *coordd.DB
	conn *pgx.ConnConfig
	cfg  Config

	mu      sync.Mutex
	hearing error // why it hears nothing; nil: it does
	ears    map[*ear]struct{}
}

type ear struct {
	topic string
	ring  func()
}

// New returns a Listener on the database that db is a pool of. Its connection is made as
// conn says, which [pgx.ParseConfig] has made; it does not connect before it is run.
func New(db *coordd.DB, conn *pgx.ConnConfig, cfg Config) *Listener {
	conn = conn.Copy()
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "coordd"
	}
	return &Listener{db: db, conn: conn, cfg: cfg.withDefaults(), hearing: errNotYet, ears: map[*ear]struct{}{}}
}

// Listen is [coordd.Listener]'s. It may be called at any time; nothing rings while the
// Listener hears nothing.
func (l *Listener) Listen(topic string, ring func()) (stop func()) {
	e := &ear{topic, ring}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ears[e] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.ears, e)
	}
}

// Err says why changes are not heard at present, as [ErrDeaf]; nil means that they are. A path that
// was dropped without a word counts as heard until a ping has shown it.
func (l *Listener) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hearing
}

// slowest is the longest pause between two attempts.
const slowest = time.Minute

// Run listens until ctx ends and then returns nil; its connection is closed by then. Whatever
// goes wrong, it tries again, after a tenth of a second at first and a minute at most. It fails only with
// [coordd.ErrInvalid], on a database other than PostgreSQL.
func (l *Listener) Run(ctx context.Context) error {
	if product, err := l.db.Product(ctx); err == nil && product != dialect.Postgres.Name {
		return fmt.Errorf("pglisten: %w: %s has no LISTEN", coordd.ErrInvalid, product)
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval, pause.Multiplier = 100*time.Millisecond, slowest, 2
	for ctx.Err() == nil {
		heard, err := l.serve(ctx)
		if heard {
			pause.Reset()
		}
		again := pause.NextBackOff()
		l.ended(ctx, heard, err, again)
		wait(ctx, again)
	}
	return nil
}

// Probe connects, says whether what is sent through the pool is heard, and closes that connection
// again: nil, [ErrDeaf], or what kept it from asking. It is for finding out, and changes nothing
// for who listens.
func (l *Listener) Probe(ctx context.Context) error {
	line, err := l.connect(ctx)
	if err != nil {
		return fmt.Errorf("pglisten: %w", err)
	}
	defer line.close()
	return line.probe(ctx)
}

// serve listens over one connection until that breaks or ctx ends, and says whether it ever
// heard anything.
func (l *Listener) serve(ctx context.Context) (heard bool, err error) {
	line, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	defer line.close()
	if err := line.probe(ctx); err != nil {
		return false, err
	}
	l.began()
	for {
		topic, err := line.hear(ctx)
		if err != nil {
			return true, err
		}
		l.ring(func(e *ear) bool { return e.topic == topic })
	}
}

// began rings once, for what may have been missed.
func (l *Listener) began() {
	l.mu.Lock()
	l.hearing = nil
	l.mu.Unlock()
	l.cfg.Logger.Info("changes are heard as they are committed")
	l.ring(func(*ear) bool { return true })
}

func (l *Listener) ended(ctx context.Context, heard bool, err error, again time.Duration) {
	l.mu.Lock()
	news := heard || errors.Is(l.hearing, errNotYet)
	l.hearing = fmt.Errorf("pglisten: %w", err)
	l.mu.Unlock()
	if news && ctx.Err() == nil {
		l.cfg.Logger.Warn("changes are not heard; they are looked for, which takes longer", "error", err, "next_try", again)
	}
}

// ring wakes whom it concerns.
func (l *Listener) ring(concerns func(*ear) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := range l.ears {
		if concerns(e) {
			e.ring()
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
