package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dsn"
	"github.com/coordd/coordd/migrations"
)

// runConfig is what `coordd run` was told.
type runConfig struct {
	member  heartbeat.Config
	listen  string
	dev     bool
	migrate bool
}

func runCommand(database *databaseFlag) *cobra.Command {
	var cfg runConfig
	run := &cobra.Command{
		Use:   "run",
		Short: "Be a member until interrupted, and serve the HTTP API",
		Long: `Be a member until interrupted, and serve the HTTP API on loopback.

Without a DSN it uses SQLite in ./coordd.db, which serves the processes of one host only.
SIGTERM and SIGINT leave: others see it at once. A session that others declared dead, after
a freeze for example, is joined again under a new id.`,
		Example: `  coordd run --dev
  COORDD_DSN=postgres://app:secret@db:5432/app coordd run --name app-7 --address 10.0.0.7:8080`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.member.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return cfg.run(cmd.Context(), database, cmd.OutOrStdout())
		},
	}
	f := run.Flags()
	f.StringVar(&cfg.member.Name, "name", "", "stable name of this server, for people (default the host's name)")
	f.StringVar(&cfg.member.Address, "address", "", "where this server is reached; shown to others and never used as identity")
	f.StringToStringVar(&cfg.member.Labels, "label", nil, "label key=value; repeatable")
	f.DurationVar(&cfg.member.TTL, "ttl", heartbeat.DefaultTTL, "how long the session is valid after its latest beat; a crash is seen a little later")
	f.StringVar(&cfg.listen, "listen", "127.0.0.1:7400", "loopback address of the HTTP API, or off")
	f.BoolVar(&cfg.dev, "dev", false, "three members in this process, dev-1 to dev-3, to have something to see")
	f.BoolVar(&cfg.migrate, "migrate", false, "bring the tables up first (always done on SQLite)")
	return run
}

// run joins, serves and leaves.
func (cfg runConfig) run(ctx context.Context, database *databaseFlag, out io.Writer) error {
	members, err := cfg.members()
	if err != nil {
		return err
	}
	listener, err := cfg.listenOn()
	if err != nil {
		return err
	}
	if listener != nil {
		defer listener.Close()
	}
	target, err := database.target()
	if err != nil {
		return err
	}
	db, err := cfg.open(ctx, target)
	if err != nil {
		return err
	}
	defer db.Pool().Close()

	d := &daemon{db: db, log: cfg.member.Logger, want: len(members), out: out, dev: cfg.dev, listener: listener}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.serve(ctx) })
	group.Go(func() error { return d.tidy(ctx) })
	for _, m := range members {
		group.Go(func() error { return heartbeat.Run(ctx, db, m, d.member) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return nil
}

// members are the members that this process is.
func (cfg runConfig) members() ([]heartbeat.Config, error) {
	m := cfg.member
	m.Version = release()
	if !cfg.dev {
		if m.Name == "" {
			host, err := os.Hostname()
			if err != nil || host == "" {
				return nil, usageError{errors.New("this host has no name: give the member one with --name")}
			}
			m.Name = host
		}
		return []heartbeat.Config{m}, m.Validate()
	}
	if m.Name != "" {
		return nil, usageError{errors.New("--dev names its members itself: leave out --name")}
	}
	var three []heartbeat.Config
	for _, name := range []string{"dev-1", "dev-2", "dev-3"} {
		m.Name = name
		three = append(three, m)
	}
	return three, three[0].Validate()
}

// listenOn takes the port before anything is written, so that a second daemon of a host
// fails at once and whole. It returns nil where no API is wanted.
func (cfg runConfig) listenOn() (net.Listener, error) {
	if cfg.listen == "off" {
		return nil, nil
	}
	if err := httpapi.CheckListen(cfg.listen); err != nil {
		return nil, usageError{err}
	}
	l, err := net.Listen("tcp", cfg.listen)
	if err != nil {
		return nil, usageError{fmt.Errorf("%w: if another coordd serves there, choose --listen 127.0.0.1:PORT, or off", err)}
	}
	return l, nil
}

func (cfg runConfig) open(ctx context.Context, target *dsn.Target) (*coordd.DB, error) {
	if cfg.migrate || target.File() != "" {
		db, err := target.Open(ctx, migrationBound)
		if err != nil {
			return nil, err
		}
		defer db.Pool().Close()
		if err := migrations.Up(ctx, db); err != nil {
			return nil, fmt.Errorf("%s: %w", target, err)
		}
	}
	if target.File() != "" {
		cfg.member.Logger.Warn("SQLite: single host only", "file", target.String())
	}
	return target.Open(ctx, cmp.Or(cfg.member.TTL, heartbeat.DefaultTTL)/5) // below the client's own deadline of TTL/4
}

// daemon is a running coordd.
type daemon struct {
	db       *coordd.DB
	log      *slog.Logger
	listener net.Listener // nil: no API
	want     int          // sessions
	dev      bool
	out      io.Writer

	mu       sync.Mutex
	sessions []*heartbeat.Session
	shown    bool
}

// member is the work of one session: to be seen, until it ends.
func (d *daemon) member(ctx context.Context, s *heartbeat.Session) error {
	d.mu.Lock()
	d.sessions = append(d.sessions, s)
	show := d.dev && len(d.sessions) == d.want && !d.shown
	d.shown = d.shown || show
	d.mu.Unlock()
	if show {
		d.welcome(ctx)
	}
	<-ctx.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions = slices.DeleteFunc(d.sessions, func(other *heartbeat.Session) bool { return other == s })
	return nil
}

// How long the tables keep members that have ended and events, and how often that is
// looked at.
const (
	retention  = 24 * time.Hour
	tidyPeriod = 10 * time.Minute
)

// tidy keeps the tables small.
func (d *daemon) tidy(ctx context.Context) error {
	tick := time.NewTicker(tidyPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		bounded, cancel := context.WithTimeout(ctx, tidyPeriod)
		if err := d.deleteOld(bounded); err != nil {
			d.log.Warn("cannot delete what is old; it is tried again", "error", err, "next_try", tidyPeriod)
		}
		cancel()
	}
}

func (d *daemon) deleteOld(ctx context.Context) error {
	members, err := heartbeat.Purge(ctx, d.db, retention)
	if err != nil {
		return err
	}
	changes, err := events.Compact(ctx, d.db, retention)
	if members+changes > 0 {
		d.log.Info("deleted what is old", "members", members, "events", changes)
	}
	return err
}

// welcome shows a newcomer what there is.
func (d *daemon) welcome(ctx context.Context) {
	if err := showMembers(ctx, d.out, d.db, "table"); err != nil {
		d.log.Error("cannot show the members", "error", err)
	}
	fmt.Fprintln(d.out, "\nLook at them from another terminal:  coordd members -w")
	if d.listener != nil {
		fmt.Fprintf(d.out, "or over HTTP:                        curl http://%s/v1/members\n", d.listener.Addr())
	}
	fmt.Fprintln(d.out, "Ctrl-C ends it.")
}

func (d *daemon) current() []*heartbeat.Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sessions)
}

// serve serves the API until ctx ends.
func (d *daemon) serve(ctx context.Context) error {
	if d.listener == nil {
		return nil
	}
	server := httpapi.Server(httpapi.New(httpapi.Config{
		DB: d.db, Version: release(), Want: d.want, Sessions: d.current, Logger: d.log,
	}))
	server.ErrorLog = slog.NewLogLogger(d.log.Handler(), slog.LevelWarn)
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			stopped <- server.Close() // somebody holds a request open
			return
		}
		stopped <- nil
	})
	d.log.Info("serving", "address", d.listener.Addr().String())
	err := server.Serve(d.listener)
	if !stop() && errors.Is(err, http.ErrServerClosed) {
		return <-stopped
	}
	return err
}
