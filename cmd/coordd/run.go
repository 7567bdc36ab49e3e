package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/doctor"
	"github.com/coordd/coordd/internal/dsn"
	"github.com/coordd/coordd/internal/load"
	"github.com/coordd/coordd/lock"
	"github.com/coordd/coordd/migrations"
	"github.com/coordd/coordd/pglisten"
)

// runConfig is what `coordd run` was told.
type runConfig struct {
	from   *sourceFlags
	member heartbeat.Config
	api    apiConfig
	dev    bool

	elect        []string // elections in which its members campaign
	groups       []string
	restartGrace time.Duration

	settings []setting // as they are shown
	migrate  bool
}

func runCommand(from *sourceFlags) *cobra.Command {
	run, _ := newRunCommand(from)
	return run
}

func newRunCommand(from *sourceFlags) (*cobra.Command, *runConfig) {
	cfg := &runConfig{from: from}
	run := &cobra.Command{
		Use:   "run",
		Short: "Be a member until interrupted, and serve the HTTP API",
		Long: `Be a member until interrupted, and serve the HTTP API on loopback.

Without a DSN it uses SQLite in ./coordd.db, which serves the processes of one host only.
SIGTERM and SIGINT leave: others see it at once. A session that others declared dead, after
a freeze for example, is joined again under a new id. SIGHUP reads the files of tokens and TLS again,
or, where a terminal shows the log, leaves, as that has closed. Under systemd it tells when it is ready
(Type=notify).`,
		Example: `  coordd run --dev
  COORDD_DSN=postgres://app:secret@db:5432/app coordd run --name app-7 --address 10.0.0.7:8080`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.settings = shownSettings(cmd, from.origins)
			cfg.member.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return cfg.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := run.Flags()
	f.StringVar(&cfg.member.Name, "name", "", "stable name of this server, for people (default the host's name)")
	f.StringVar(&cfg.member.Address, "address", "", "where this server is reached; shown to others and never used as identity")
	f.StringToStringVar(&cfg.member.Labels, "label", nil, "label key=value; repeatable")
	f.DurationVar(&cfg.member.TTL, "ttl", heartbeat.DefaultTTL, "how long the session is valid after its latest beat; a crash is seen a little later")
	f.StringSliceVar(&cfg.elect, "elect", nil, "election to campaign in, with the address as its value; GET /role/leader/NAME says who leads; repeatable")
	f.StringSliceVar(&cfg.groups, "group", nil, "group of jobs that this member looks after, made if there is none; repeatable")
	f.DurationVar(&cfg.restartGrace, "restart-grace", 0, "say on the way out that this member restarts, and have its jobs kept for its name for so long in groups that it makes")
	cfg.api.add(f)
	f.BoolVar(&cfg.dev, "dev", false, "three members in this process, dev-1 to dev-3, and a group of jobs, demo, to have something to see")
	f.BoolVar(&cfg.migrate, "migrate", false, "bring the tables up first (always done on SQLite)")
	return run, cfg
}

// run joins, serves and leaves.
func (cfg runConfig) run(ctx context.Context, out io.Writer) error {
	members, err := cfg.members()
	if err != nil {
		return err
	}
	api, err := cfg.api.listenOn()
	if err != nil {
		return err
	}
	if api.listener != nil {
		defer api.listener.Close()
	}
	target, err := cfg.from.target()
	if err != nil {
		return err
	}
	db, err := cfg.open(ctx, target)
	if err != nil {
		return err
	}
	defer db.Pool().Close()

	if cfg.dev && len(cfg.groups) == 0 {
		cfg.groups = []string{demoGroup}
	}
	d := &daemon{
		db: db, log: cfg.member.Logger, want: len(members), out: out, dev: cfg.dev, api: api, settings: cfg.settings,
		joined: make(chan struct{}), elect: cfg.campaigns(), groups: cfg.groups, restartGrace: cfg.restartGrace,
		examine: func(ctx context.Context) []httpapi.Finding {
			return showFindings(doctor.Examine(ctx, target, doctor.Config{TTL: members[0].TTL, Pool: db, Members: len(members)}))
		},
	}
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	group, ctx := errgroup.WithContext(ctx)
	if conn := target.Postgres(); conn != nil {
		ears := pglisten.New(db, conn, pglisten.Config{Logger: d.log})
		db.Listener = ears                                            // before anybody uses db
		group.Go(func() error { return d.onceJoined(ctx, ears.Run) }) // fails on other databases only
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx)) // until all have left: clients give up what is held for them
	defer stopServing()
	group.Go(func() error { return d.serve(serving) })
	group.Go(func() error { return d.supervised(ctx, hangUp) })
	group.Go(func() error { return d.tidy(ctx) })
	group.Go(func() error { return d.onceJoined(ctx, d.drain) })
	if cfg.dev {
		group.Go(func() error { return d.onceJoined(ctx, d.showShares) })
	}
	var staying sync.WaitGroup
	staying.Add(len(members))
	for _, m := range members {
		group.Go(func() error {
			defer staying.Done()
			return heartbeat.Run(ctx, db, m, d.member)
		})
	}
	group.Go(func() error {
		staying.Wait()
		stopServing()
		return nil
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return nil
}

// members are the members that this process is.
func (cfg runConfig) members() ([]heartbeat.Config, error) {
	if err := cfg.checkElections(); err != nil {
		return nil, err
	}
	if _, err := assign.WeightOf(cfg.member.Labels); err != nil {
		return nil, usageError{err}
	}
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
		m.Load = load.New().Load
		return []heartbeat.Config{m}, m.Validate()
	}
	if m.Name != "" {
		return nil, usageError{errors.New("--dev names its members itself: leave out --name")}
	}
	var three []heartbeat.Config
	for _, name := range []string{"dev-1", "dev-2", "dev-3"} {
		m.Name, m.Load = name, load.New().Load
		three = append(three, m)
	}
	return three, three[0].Validate()
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
	api      *api
	examine  func(context.Context) []httpapi.Finding
	settings any
	loops    loops
	want     int // sessions
	dev      bool
	out      io.Writer

	elect        []election.Config // in which its members campaign
	groups       []string          // of jobs, that its members look after
	restartGrace time.Duration

	first  sync.Once
	joined chan struct{} // closed when the first session has joined

	mu       sync.Mutex
	sessions []*heartbeat.Session
	leads    []leads
	shown    bool
}

// member is the work of one session: to be seen, to lead where it is elected, and to look after jobs, until it ends.
func (d *daemon) member(ctx context.Context, s *heartbeat.Session) error {
	d.first.Do(func() { close(d.joined) })
	d.mu.Lock()
	d.sessions = append(d.sessions, s)
	show := d.dev && len(d.sessions) == d.want && !d.shown
	d.shown = d.shown || show
	d.mu.Unlock()
	if show {
		d.welcome(ctx)
	}
	var campaigns sync.WaitGroup
	for _, e := range d.elect {
		campaigns.Go(func() { d.campaign(ctx, s, e) })
	}
	d.lookAfter(ctx, s)
	campaigns.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions = slices.DeleteFunc(d.sessions, func(other *heartbeat.Session) bool { return other == s })
	return nil
}

// onceJoined does something once a session has joined: what is wrong from the start is told by
// joining, and by nobody else.
func (d *daemon) onceJoined(ctx context.Context, do func(context.Context) error) error {
	select {
	case <-d.joined:
		return do(ctx)
	case <-ctx.Done():
		return nil
	}
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
		} else {
			d.loops.did(loopTidy)
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
	if err != nil {
		return err
	}
	leases, err := lock.Tidy(ctx, d.db, retention)
	if members+changes+leases > 0 {
		d.log.Info("deleted what is old", "members", members, "events", changes, "leases", leases)
	}
	return err
}

// welcome shows a newcomer what there is.
func (d *daemon) welcome(ctx context.Context) {
	if err := showMembers(ctx, d.out, direct{db: d.db}, httpapi.Filter{}, "table"); err != nil {
		d.log.Error("cannot show the members", "error", err)
	}
	program := os.Args[0]
	fmt.Fprintf(d.out, "\nLook at them from another terminal:  %s members -w\n", program)
	fmt.Fprintf(d.out, "See who looks after which job:       %s jobs list %s\n", program, d.groups[0])
	fmt.Fprintf(d.out, "Kill one, and see its jobs move:     %s forget dev-2 --yes\n", program)
	if d.api.listener != nil {
		fmt.Fprintf(d.out, "or over HTTP:                        curl http://%s/v1/members\n", d.api.listener.Addr())
	}
	fmt.Fprintln(d.out, "Ctrl-C ends it.")
}

func (d *daemon) current() []*heartbeat.Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sessions)
}
