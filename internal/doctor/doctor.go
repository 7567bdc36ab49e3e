// Package doctor examines a database on which coordd is to run, or does, and says of each thing
// that it found whether that will do and how to mend it.
//
// It writes nothing. Some questions are statements that would change rows, of which there are none
// that they match. It opens a pool of its own, as the daemon does, so it sees what a daemon would
// that started now; and one more connection each for TLS and for NOTIFY on PostgreSQL.
//
// What it finds is of this moment, this host and this user: some servers show a user less than
// there is, which it then says.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dialect"
	"github.com/coordd/coordd/internal/dsn"
)

// Finding is the answer to one question.
type Finding struct {
	Name    string  `json:"name"` // of the question: "history"
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found"` // on one line, figures with their units
	Fix     string  `json:"fix"`   // what to do, in the imperative; empty where the verdict is ok

	// Err is what the database or the driver said, where that is the finding.
	Err error `json:"-"`
}

// Verdict is how serious a finding is.
type Verdict string

// The verdicts. What has failed keeps coordd, or one of its promises, from working; a warning is of
// something that works and will be slower, or fail sooner, than it need.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Failed  Verdict = "failed"
)

// Connection is the name of the first finding, and of the only one if it has failed.
const Connection = "connection"

// Config says for whom the database is examined. Nothing in it is needed.
type Config struct {
	TTL     time.Duration // of the sessions that it is to carry; 0 means heartbeat.DefaultTTL
	Timeout time.Duration // of their statements; 0 means TTL/4

	// Pool is the one that the sessions share, to be judged by its size; nil: as the daemon opens
	// it. Members is how many they are; 0 means 1.
	Pool    *coordd.DB
	Members int

	// Old is the age from which an open transaction is worth a warning; 0 means a minute.
	Old time.Duration

	// Patience ends the answer to one question; 0 means 5 s.
	Patience time.Duration
}

func (c Config) withDefaults() Config {
	if c.TTL <= 0 {
		c.TTL = heartbeat.DefaultTTL
	}
	if c.Timeout <= 0 {
		c.Timeout = c.TTL / 4
	}
	if c.Members <= 0 {
		c.Members = 1
	}
	if c.Old <= 0 {
		c.Old = time.Minute
	}
	if c.Patience <= 0 {
		c.Patience = 5 * time.Second
	}
	return c
}

// Examine asks every question that makes sense of this database, in one order always. A question
// that cannot be answered is a finding too and hides no other; left out is only what depends on
// something that has failed, as the privileges on tables that are not there.
func Examine(ctx context.Context, target *dsn.Target, cfg Config) []Finding {
	p := &patient{target: target, cfg: cfg.withDefaults()}
	connection := named(Connection, p.connect(ctx))
	all := []Finding{connection}
	if p.db == nil {
		return all
	}
	defer p.db.Pool().Close()
	var failed []string
	for _, q := range questions {
		if slices.ContainsFunc(q.after, func(name string) bool { return slices.Contains(failed, name) }) {
			continue
		}
		f := named(q.name, p.ask(ctx, q))
		if f.Verdict == "" {
			continue // it makes no sense of this database
		}
		if f.Verdict == Failed {
			failed = append(failed, q.name)
		}
		all = append(all, f)
	}
	return all
}

// question is one check. It is not asked where one that it comes after has failed.
type question struct {
	name  string
	ask   func(*patient, context.Context) (Finding, error)
	after []string
}

var questions = []question{
	{name: "version", ask: (*patient).version},
	{name: "tls", ask: (*patient).tls},
	{name: "primary", ask: (*patient).primary},
	{name: "schema", ask: (*patient).schema},
	{name: "privileges", ask: (*patient).privileges},
	{name: "history", ask: (*patient).history, after: []string{"primary", "schema"}},
	{name: "ttl", ask: (*patient).ttl, after: []string{"schema"}},
	{name: "latency", ask: (*patient).latency},
	{name: "isolation", ask: (*patient).isolation},
	{name: "durability", ask: (*patient).durability},
	{name: "pooler", ask: (*patient).pooler},
	{name: "notify", ask: (*patient).notify, after: []string{"primary"}},
	{name: "prepare", ask: (*patient).prepare},
	{name: "pool", ask: (*patient).pool},
	{name: "connections", ask: (*patient).connections},
	{name: "transactions", ask: (*patient).transactions},
	{name: "journal", ask: (*patient).journal},
	{name: "file", ask: (*patient).file},
	{name: "clock", ask: (*patient).clock},
}

// patient is a database under examination.
type patient struct {
	target *dsn.Target
	cfg    Config
	db     *coordd.DB // nil: it could not be opened
	words  words
}

// connect opens the pool as the daemon does.
func (p *patient) connect(ctx context.Context) Finding {
	began := time.Now()
	product, err := p.open(ctx)
	if err != nil {
		f := unanswered(err)
		f.Verdict, f.Found = Failed, p.target.String()+": "+strings.TrimPrefix(f.Found, p.target.String()+": ")
		return f
	}
	return fine("%s at %s answered after %v", product, p.target, short(time.Since(began)))
}

func (p *patient) open(ctx context.Context) (product string, err error) {
	if file := p.target.File(); file != "" {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) { // SQLite would make it
			return "", &coordd.Error{Kind: coordd.ErrUnreachable, Err: fmt.Errorf("there is no file %s here", file),
				Hint: "start `coordd run` first, which makes it, or name your database with --dsn or COORDD_DSN"}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*p.cfg.Patience)
	defer cancel()
	db, err := p.target.Open(ctx, p.cfg.TTL/5)
	if err != nil {
		return "", err
	}
	product, err = db.Product(ctx)
	if err != nil {
		db.Pool().Close()
		return "", err
	}
	p.db, p.words = db, wordsOf(product)
	return product, nil
}

// ask puts one question, for no longer than patience lasts.
func (p *patient) ask(ctx context.Context, q question) Finding {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Patience)
	defer cancel()
	f, err := q.ask(p, ctx)
	if err != nil {
		return unanswered(p.db.Explain(err))
	}
	return f
}

// unanswered is the finding that a question got no answer. Where that was for want of a privilege
// nothing need be wrong.
func unanswered(err error) Finding {
	f := Finding{Verdict: Failed, Found: oneLine(err.Error()), Fix: "look up what the database says", Err: err}
	var known *coordd.Error
	switch {
	case errors.As(err, &known):
		f.Found, f.Fix = oneLine(known.Kind.Error()+": "+known.Err.Error()), known.Hint
	case errors.Is(err, dialect.ErrAutocommit):
		f.Found, f.Fix, _ = strings.Cut(f.Found, "; ")
	}
	if errors.Is(err, coordd.ErrForbidden) {
		f.Verdict = Warning
	}
	return f
}

func named(name string, f Finding) Finding {
	f.Name = name
	return f
}

func fine(format string, args ...any) Finding {
	return Finding{Verdict: OK, Found: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) Finding {
	return Finding{Verdict: Warning, Fix: fix, Found: fmt.Sprintf(format, args...)}
}

func fail(fix, format string, args ...any) Finding {
	return Finding{Verdict: Failed, Fix: fix, Found: fmt.Sprintf(format, args...)}
}

// short leaves out digits that nobody reads.
func short(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second || d < -10*time.Second:
		return d.Round(time.Second)
	case d > 100*time.Millisecond || d < -100*time.Millisecond:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
