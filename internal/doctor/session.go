package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/coordd/coordd/pglisten"
)

// What lies between this host and the server: the connection, a pooler, time.

// tls says whether others can listen.
func (p *patient) tls(ctx context.Context) (Finding, error) {
	if p.target.File() != "" {
		return Finding{}, nil
	}
	cipher, err := p.encryption(ctx)
	switch {
	case err != nil:
		return Finding{}, err
	case cipher != "":
		return fine("encrypted (%s)", cipher), nil
	case p.target.Local():
		return fine("not encrypted, nor need it be: the database is on this host"), nil
	}
	return warn("ask for TLS in the DSN: sslmode=verify-full of PostgreSQL, tls=true of MySQL and MariaDB",
		"not encrypted: whoever is on the way can read it, and change it"), nil
}

// encryption is what encrypts a connection, and empty if nothing does. PostgreSQL's own answer would be
// of a pooler's connection.
func (p *patient) encryption(ctx context.Context) (string, error) {
	cfg := p.target.Postgres()
	if cfg == nil {
		var name, cipher string
		err := p.db.Get(ctx, []any{&name, &cipher}, p.words.cipher)
		return cipher, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	encrypted, ok := conn.PgConn().Conn().(*tls.Conn)
	if !ok {
		return "", nil
	}
	return tls.VersionName(encrypted.ConnectionState().Version), nil
}

// pooler tells whether each connection keeps what serves it: one that has done its statement lends its
// server to nobody else. In transaction mode the next who asks gets it, or it gets another one.
func (p *patient) pooler(ctx context.Context) (Finding, error) {
	if p.words.process == "" {
		return Finding{}, nil
	}
	one, err := p.db.Pool().Conn(ctx)
	if err != nil {
		return Finding{}, err
	}
	defer one.Close()
	other, err := p.db.Pool().Conn(ctx)
	if err != nil {
		return Finding{}, err
	}
	defer other.Close()
	var first, between, again int64
	var bounded bool
	if err := p.db.On(one).Get(ctx, []any{&bounded}, p.words.bounded); err != nil {
		return Finding{}, err
	}
	if err := p.db.On(one).Get(ctx, []any{&first}, p.words.process); err != nil {
		return Finding{}, err
	}
	tx, err := other.BeginTx(ctx, nil)
	if err != nil {
		return Finding{}, err
	}
	defer tx.Rollback()
	if err := p.db.On(tx).Get(ctx, []any{&between}, p.words.process); err != nil {
		return Finding{}, err
	}
	shared := between == first
	if !shared { // or a pool of one would wait for ever
		if err := p.db.On(one).Get(ctx, []any{&again}, p.words.process); err != nil {
			return Finding{}, err
		}
		shared = again != first
	}
	return pooled(shared, bounded), nil
}

func pooled(shared, bounded bool) Finding {
	const bounds = "the server does not end statements that coordd has given up"
	switch {
	case shared && !bounded:
		return warn("connect straight to the server; or set statement_timeout, lock_timeout and idle_in_transaction_session_timeout for the user (alter role)",
			"a pooler in transaction mode, where no setting of a connection holds: %s", bounds)
	case shared:
		return warn("connect straight to the server, or leave it: all works, but for NOTIFY",
			"a pooler in transaction mode, where no setting of a connection holds; the server ends statements by its own settings")
	case !bounded:
		return warn("let the pooler pass startup parameters on, or set statement_timeout for the user", "settings of a connection do not reach the server: %s", bounds)
	}
	return fine("none in transaction mode: each connection keeps its own server process, which ends statements that take too long")
}

// notify sends one, and listens for it.
func (p *patient) notify(ctx context.Context) (Finding, error) {
	if !p.words.listens {
		return Finding{}, nil
	}
	began := time.Now()
	err := pglisten.New(p.db, p.target.Postgres(), pglisten.Config{Timeout: p.cfg.Patience / 3}).Probe(ctx)
	switch {
	case errors.Is(err, pglisten.ErrDeaf):
		return warn("connect straight to the server and not through a pooler in transaction mode; or leave it: nothing but that depends on it",
			"NOTIFY is not heard, so hints are off: changes are seen with the next look, within a second or a beat, instead of at once"), nil
	case err != nil:
		f := unanswered(p.db.Explain(err))
		f.Verdict = Warning // nothing depends on it
		return f, nil
	}
	return fine("a notification was heard, within %v of connecting for it", short(time.Since(began))), nil
}

// prepare says whether a statement takes one round trip or three.
func (p *patient) prepare(ctx context.Context) (Finding, error) {
	if p.words.prepared == "" {
		return Finding{}, nil
	}
	conn, err := cmp.Or(p.cfg.Pool, p.db).Pool().Conn(ctx)
	if err != nil {
		return Finding{}, err
	}
	defer conn.Close()
	q := p.db.On(conn)
	var name string
	var before, after, one int64
	if err := q.Get(ctx, []any{&name, &before}, p.words.prepared); err != nil {
		return Finding{}, err
	}
	if err := q.Get(ctx, []any{&one}, `select ?`, 1); err != nil {
		return Finding{}, err
	}
	if err := q.Get(ctx, []any{&name, &after}, p.words.prepared); err != nil {
		return Finding{}, err
	}
	if after > before {
		return warn("open the pool with interpolateParams=true", "each statement is prepared first: it takes three round trips instead of one"), nil
	}
	return fine("a statement takes one round trip"), nil
}

// trips is how many round trips are measured, if they do not take longer than half of patience.
const trips = 20

// latency measures small statements against the time that one may take.
func (p *patient) latency(ctx context.Context) (Finding, error) {
	conn, err := p.db.Pool().Conn(ctx)
	if err != nil {
		return Finding{}, err
	}
	defer conn.Close()
	var took []time.Duration
	for began := time.Now(); len(took) <= trips && time.Since(began) < p.cfg.Patience/2; {
		sent := time.Now()
		var one int
		if err := p.db.On(conn).Get(ctx, []any{&one}, `select 1`); err != nil {
			return Finding{}, err
		}
		took = append(took, time.Since(sent))
	}
	if len(took) > 1 {
		took = took[1:] // the first was also described
	}
	slices.Sort(took)
	return p.judge(took[len(took)/2], took[len(took)-1], len(took)), nil
}

// judge wants half of the timeout to spare: a beat has to commit as well.
func (p *patient) judge(median, slowest time.Duration, n int) Finding {
	took := fmt.Sprintf("%d round trips took %v in the median, %v at the most; a statement may take %v (TTL %v)",
		n, short(median), short(slowest), p.cfg.Timeout, p.cfg.TTL)
	fix := "find out what is slow, the network or the server; or "
	if enough := (8 * slowest).Truncate(time.Second) + time.Second; enough > p.cfg.TTL {
		fix += fmt.Sprintf("choose a TTL of %v or more", enough)
	} else {
		fix += fmt.Sprintf("let a statement take %v or more", short(2*slowest))
	}
	switch {
	case median >= p.cfg.Timeout:
		return fail(fix, "%s: most beats would fail", took)
	case slowest >= p.cfg.Timeout:
		return warn(fix, "%s: some beats would fail", took)
	case slowest >= p.cfg.Timeout/2:
		return warn(fix, "%s: too near", took)
	}
	return fine("%s", took)
}

// stepped is by how much clocks differ that nobody sets.
const stepped = time.Second

// clock compares the database's with this host's, by the fastest of a few answers. No decision
// hangs on it.
func (p *patient) clock(ctx context.Context) (Finding, error) {
	var ahead, within time.Duration
	for i := range 5 {
		sent := time.Now()
		var us int64
		if err := p.db.Get(ctx, []any{&us}, `select {now}`); err != nil {
			return Finding{}, err
		}
		took := time.Since(sent)
		if i == 0 || took < 2*within {
			within = took / 2
			ahead = time.UnixMicro(us).Sub(sent) - within
		}
	}
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	if ahead.Abs() > stepped+within {
		return warn("have NTP set both clocks: no decision hangs on them, but the times that people read do",
			"the database's is %v (± %v) %s this host's", short(ahead.Abs()), short(within), side), nil
	}
	return fine("the database's is %v (± %v) %s this host's", short(ahead.Abs()), short(within), side), nil
}

// pool says whether sessions have to wait for each other's connection.
func (p *patient) pool(context.Context) (Finding, error) {
	most := cmp.Or(p.cfg.Pool, p.db).Pool().Stats().MaxOpenConnections
	need := p.cfg.Members + 1
	switch {
	case p.target.File() != "":
		return fine("%s, as SQLite has one writer", limit(most)), nil
	case most > 0 && most < need:
		return warn("raise SetMaxOpenConns: one for each session's beats, and at least one for all else",
			"%s, and %d session(s) take %d at least: a beat may wait behind everything else", limit(most), p.cfg.Members, need), nil
	}
	return fine("%s", limit(most)), nil
}

func limit(most int) string {
	if most == 0 {
		return "no limit"
	}
	return fmt.Sprintf("%d at the most", most)
}
