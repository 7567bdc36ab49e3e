package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/client"
	"github.com/coordd/coordd/internal/dsn"
)

// source is what commands look at: a database, or a daemon that has it.
type source interface {
	Members(ctx context.Context, f httpapi.Filter) ([]httpapi.Member, error)
	Member(ctx context.Context, which string) (httpapi.Member, error)
	Drain(ctx context.Context, which, reason string) (httpapi.Member, error)
	Undrain(ctx context.Context, which, reason string) (httpapi.Member, error)
	Forget(ctx context.Context, which, reason string) (httpapi.Member, error)
	Elections(ctx context.Context) ([]httpapi.Election, error)
	Election(ctx context.Context, name string) (httpapi.Election, error)
	Resign(ctx context.Context, election string, ask httpapi.Ask) error
	Transfer(ctx context.Context, election, to string, ask httpapi.Ask) error
	Locks(ctx context.Context) ([]httpapi.Lock, error)
	Lock(ctx context.Context, name string) (httpapi.Lock, error)
	ReleaseLock(ctx context.Context, name string, ask httpapi.Ask) error
	Events(ctx context.Context, q client.Query) (httpapi.EventPage, error)
	Watch(ctx context.Context, from int64, topics ...string) iter.Seq2[httpapi.Event, error]
	Status(ctx context.Context) (httpapi.Status, error)
	Doctor(ctx context.Context) ([]httpapi.Finding, error)

	Groups(ctx context.Context) ([]httpapi.Group, error)
	Group(ctx context.Context, name string) (httpapi.Group, error)
	Define(ctx context.Context, g httpapi.Group) (httpapi.Group, error)
	Shares(ctx context.Context, group string) ([]httpapi.Share, error)
	Preview(ctx context.Context, group string, without, with []string) (httpapi.Preview, error)
	Jobs(ctx context.Context, group, after string, limit int) (httpapi.JobPage, error)
	Job(ctx context.Context, group, key string) (httpapi.Job, error)
	AddJobs(ctx context.Context, group string, jobs []httpapi.JobSpec) (added int, err error)
	RemoveJob(ctx context.Context, group, key string) error
	PauseJob(ctx context.Context, group, key string) error
	ResumeJob(ctx context.Context, group, key string) error
}

// sourceFlags say which it is.
type sourceFlags struct {
	dsn, dsnFile, addr, tokenFile, caFile string

	origins origins // of the command's settings
}

const defaultDSN = "sqlite:coordd.db"

func (f *sourceFlags) add(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&f.dsn, "dsn", "", "the database, as a URL; COORDD_DSN in the environment hides it from ps (default sqlite:coordd.db)")
	flags.StringVar(&f.dsnFile, "dsn-file", "", "a file that has the DSN and nothing else")
	flags.StringVar(&f.addr, "addr", "", "a daemon to ask in place of the database, as 127.0.0.1:7400 or https://app-7:7400")
	flags.StringVar(&f.tokenFile, "token-file", "", "a file that has the token for that daemon and nothing else")
	flags.StringVar(&f.caFile, "ca-file", "", "certificates in PEM by which that daemon is known, beside the system's")
}

// secret reads a file that has one secret.
func secret(what, file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", usageError{fmt.Errorf("the %s cannot be read: %w", what, err)}
	}
	s := strings.TrimSpace(string(b))
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return "", usageError{fmt.Errorf("the %s %s must have one line", what, file)}
	}
	return s, nil
}

// target is the database, for commands that work on one.
func (f *sourceFlags) target() (*dsn.Target, error) {
	if f.addr != "" {
		return nil, usageError{errors.New("this command works on the database and not through a daemon: leave out --addr")}
	}
	s := f.dsn
	if f.dsnFile != "" {
		if s != "" {
			return nil, usageError{errors.New("--dsn and --dsn-file say the same: leave out one")}
		}
		var err error
		if s, err = secret("DSN file", f.dsnFile); err != nil {
			return nil, err
		}
	}
	if s == "" {
		s = defaultDSN
	}
	t, err := dsn.Parse(s)
	if err != nil {
		return nil, usageError{err}
	}
	return t, nil
}

// kind is what is asked, for people.
func (f *sourceFlags) kind() string {
	if f.addr != "" {
		return "the daemon"
	}
	return "the database"
}

// use opens the database for one command, and says of every error where it was. A file
// must exist, unless the command may make it.
func (f *sourceFlags) use(ctx context.Context, bound time.Duration, mayCreate bool, do func(*coordd.DB) error) error {
	t, err := f.target()
	if err != nil {
		return err
	}
	if file := t.File(); file != "" && !mayCreate {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return usageError{fmt.Errorf("there is no file %s here: start `coordd run` first, or name your database with --dsn or COORDD_DSN, or a daemon with --addr", file)}
		}
	}
	db, err := t.Open(ctx, bound)
	if err != nil {
		return err
	}
	defer db.Pool().Close()
	if err := do(db); err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}

// open opens what a command looks at, and says of every error where it was.
func (f *sourceFlags) open(ctx context.Context, do func(source) error) error {
	if f.addr == "" {
		return f.use(ctx, readWithin, false, func(db *coordd.DB) error {
			if err := db.CheckSchema(ctx); err != nil {
				return err
			}
			return do(direct{db, f})
		})
	}
	return f.through(func(daemon *client.Client) error { return do(daemon) })
}

// through asks a daemon, and says of every error which one.
func (f *sourceFlags) through(do func(*client.Client) error) error {
	if f.dsn != "" || f.dsnFile != "" {
		return usageError{errors.New("--addr and --dsn name two places to look at: leave out one")}
	}
	daemon, err := f.daemon()
	if err != nil {
		return err
	}
	defer daemon.Close()
	if err := do(daemon); err != nil {
		return fmt.Errorf("daemon %s: %w", f.addr, err)
	}
	return nil
}

func (f *sourceFlags) daemon() (*client.Client, error) {
	cfg := client.Config{Addr: f.addr}
	if f.tokenFile != "" {
		var err error
		if cfg.Token, err = secret("token file", f.tokenFile); err != nil {
			return nil, err
		}
	}
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, usageError{fmt.Errorf("the CA file cannot be read: %w", err)}
		}
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, usageError{fmt.Errorf("the CA file %s has no certificate in PEM", f.caFile)}
		}
		cfg.TLS = &tls.Config{RootCAs: roots}
	}
	return client.New(cfg)
}
