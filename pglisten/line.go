package pglisten

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dialect"
)

// stmtListen names the channel of dialect.Postgres.WakeUp.
const stmtListen = `listen coordd`

// probing begins what is sent as a probe, which is nothing to wake anybody for.
const probing = "probe "

// line is one connection that listens.
type line struct {
	conn *pgx.Conn
	db   *coordd.DB
	cfg  Config
	cut  context.CancelFunc // ends whatever was dialled for this connection
}

func (l *Listener) connect(ctx context.Context) (*line, error) {
	life, cut := context.WithCancel(context.WithoutCancel(ctx))
	conf := l.conn.Copy()
	conf.DialFunc = mortal(life, conf.DialFunc)
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		cut()
		return nil, err
	}
	n := &line{conn: conn, db: l.db, cfg: l.cfg, cut: cut}
	if _, err := conn.Exec(ctx, stmtListen); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// mortal makes all that is dialled end with life: also what pgx dials in a goroutine of its
// own, to cancel a statement on a connection that it has given up.
func mortal(life context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(life, func() { _ = conn.Close() }) // most often it is closed already
		return conn, nil
	}
}

// probe sends a notification through the pool and waits for it.
func (n *line) probe(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	payload := probing + uuid.NewString()
	if _, err := n.db.Exec(bounded, dialect.Postgres.WakeUp, payload); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	for {
		heard, err := n.conn.WaitForNotification(bounded)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case bounded.Err() != nil:
			return ErrDeaf
		case err != nil:
			return err
		case heard.Payload == payload:
			return nil
		}
	}
}

// hear waits for a ring and returns its topic, and asks for a sign of life where there is none.
func (n *line) hear(ctx context.Context) (topic string, err error) {
	for {
		silence, cancel := context.WithTimeout(ctx, n.cfg.Ping)
		heard, err := n.conn.WaitForNotification(silence)
		quiet := silence.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case heard != nil && !strings.HasPrefix(heard.Payload, probing):
			return heard.Payload, nil
		case heard != nil: // of another that has just connected
		case err != nil && !quiet:
			return "", err
		default:
			if err := n.ping(ctx); err != nil {
				return "", fmt.Errorf("ping: %w", err)
			}
		}
	}
}

func (n *line) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	return n.conn.Ping(ctx)
}

// farewell is how long saying goodbye may take.
const farewell = time.Second

// close returns when nothing of the connection is left.
func (n *line) close() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	_ = n.conn.Close(ctx) // the server notices in any case
	n.cut()
	<-n.conn.PgConn().CleanupDone()
}
