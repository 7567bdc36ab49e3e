package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/child"
	"github.com/coordd/coordd/internal/client"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/pglisten"
)

// held is a lock or a leadership as a session, or a daemon, holds it.
type held interface {
	Context() context.Context
	Err() error
	Token() int64
	Release(ctx context.Context) error
}

// right is one with what it hangs on.
type right interface {
	held
	Member() string           // the id of the session
	Remaining() time.Duration // until others may have it, if nothing is done about it; 0: that is over
	Connection() syscall.Conn // it ends with this; nil: with none
}

// own is a right of a session of this process.
type own struct {
	held
	s *heartbeat.Session
}

func (o own) Member() string           { return o.s.ID() }
func (o own) Connection() syscall.Conn { return nil }

func (o own) Remaining() time.Duration {
	if !o.s.Valid() {
		return 0
	}
	return o.s.Stats().Remaining
}

// holding is what `lock` and `elect` do: wait for a right, hold it while a command runs or until a signal,
// and give it back. docs/commands.md says what it promises.
type holding struct {
	from *sourceFlags
	what string   // as `lock "nightly-report"`
	env  string   // the variable that tells the command of it, with its value
	args []string // the command; empty: none

	ttl   time.Duration
	grace time.Duration
	wait  time.Duration // 0: for ever

	take func(ctx context.Context, s *heartbeat.Session) (held, error) // by a session of its own
	want client.Want                                                   // the same, by a daemon
	busy func(ctx context.Context, s source) string                    // says who holds what could not be had
}

// add adds the flags that both commands have.
func (h *holding) add(cmd *cobra.Command) {
	cmd.Annotations = map[string]string{runsAnother: "yes"}
	f := cmd.Flags()
	f.DurationVar(&h.ttl, "ttl", heartbeat.DefaultTTL, "how long the session, or what a daemon holds, is valid after its latest beat; a crash is seen a little later")
	f.DurationVar(&h.grace, "grace", 10*time.Second, "how long the command has from SIGTERM to SIGKILL when it is asked to end; less where the right runs out before")
}

// nameAndCommand reads NAME [-- CMD...].
func nameAndCommand(cmd *cobra.Command, args []string) (name string, command []string, err error) {
	names := args
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		names, command = args[:dash], args[dash:]
		if len(command) == 0 {
			return "", nil, usageError{errors.New("there is no command behind the --")}
		}
	}
	if len(names) != 1 {
		return "", nil, usageError{fmt.Errorf("%s takes one name, and its command behind a --: %s", cmd.CommandPath(), cmd.UseLine())}
	}
	return names[0], command, nil
}

// member is whom the others see.
func (h holding) member() heartbeat.Config {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "coordd"
	}
	return heartbeat.Config{Name: fmt.Sprint(host, "-", os.Getpid()), Kind: heartbeat.Client, Version: release(), TTL: h.ttl}
}

func (h holding) run(cmd *cobra.Command) error {
	if h.grace < 0 || h.wait < 0 {
		return usageError{errors.New("--grace and --wait are not negative")}
	}
	if len(h.args) > 0 {
		if _, err := child.LookPath(child.Command{Args: h.args}); err != nil {
			return err // before it waits for hours
		}
	}
	ctx := context.WithoutCancel(cmd.Context()) // signals are dealt with here
	waiting, relay, stop := relaySignals(ctx)
	defer stop()
	hold := h.bySession
	if h.from.addr != "" {
		hold = h.byDaemon
	}
	err := hold(waiting, cmd, relay)
	if waiting.Err() != nil && is(err, context.Canceled) {
		return context.Cause(waiting)
	}
	return err
}

// bySession holds by a session of its own.
func (h holding) bySession(waiting context.Context, cmd *cobra.Command, relay *relay) error {
	member := h.member()
	if err := member.Validate(); err != nil {
		return err
	}
	target, err := h.from.target()
	if err != nil {
		return err
	}
	return h.from.use(waiting, h.ttl/5, false, func(db *coordd.DB) error {
		if conn := target.Postgres(); conn != nil {
			ears := pglisten.New(db, conn, pglisten.Config{})
			db.Listener = ears
			listening, deafen := context.WithCancel(context.WithoutCancel(waiting))
			var loop sync.WaitGroup
			loop.Go(func() { _ = ears.Run(listening) }) // fails on other databases only
			defer loop.Wait()
			defer deafen()
		}
		return h.hold(waiting, cmd, db, member, relay)
	})
}

// byDaemon has a daemon hold it.
func (h holding) byDaemon(waiting context.Context, cmd *cobra.Command, relay *relay) error {
	return h.from.through(func(daemon *client.Client) error {
		bounded, cancel := h.patience(waiting)
		defer cancel()
		h.want.TTL = h.ttl
		r, err := daemon.Hold(bounded, h.want)
		if err != nil {
			return h.refused(waiting, err, daemon)
		}
		h.ttl = min(h.ttl, r.Remaining()) // what a daemon promises may be less, and no more is left for the command's end
		return h.use(waiting, cmd, r, relay)
	})
}

// patience is for how long it is waited.
func (h holding) patience(waiting context.Context) (context.Context, context.CancelFunc) {
	if h.wait > 0 {
		return context.WithTimeoutCause(waiting, h.wait, errTimedOut)
	}
	return context.WithCancel(waiting)
}

// refused says that it was not had, and who has it.
func (h holding) refused(waiting context.Context, err error, s source) error {
	if is(err, errTimedOut) {
		err = fmt.Errorf("%s: %w", h.what, errTimedOut)
	}
	if is(err, errTimedOut, coordd.ErrHeld) && h.busy != nil {
		err = fmt.Errorf("%w%s", err, h.busy(context.WithoutCancel(waiting), s))
	}
	return err
}

// hold waits and holds. A session that is lost while it waits is joined again, in a new place in the
// line.
func (h holding) hold(waiting context.Context, cmd *cobra.Command, db *coordd.DB, member heartbeat.Config, relay *relay) error {
	bounded, cancel := h.patience(waiting)
	defer cancel()
	var outcome error
	had := false
	err := heartbeat.Run(bounded, db, member, func(ctx context.Context, s *heartbeat.Session) error {
		r, err := h.take(ctx, s)
		if err != nil {
			return err
		}
		had = true
		outcome = h.use(waiting, cmd, own{r, s}, relay)
		cancel() // it is not joined again
		return nil
	})
	switch {
	case had:
		return outcome
	case err == nil:
		err = context.Cause(bounded)
	}
	return h.refused(waiting, err, direct{db: db})
}

// use runs the command, or waits for a signal, and gives the right back.
func (h holding) use(waiting context.Context, cmd *cobra.Command, r right, relay *relay) (err error) {
	defer func() {
		if is(err, child.ErrAlive) {
			return // nobody may have it for free: it is not renewed, and others wait until its time is over
		}
		if failed := r.Release(waiting); failed != nil {
			cmd.PrintErrf("coordd: %v\n", failed)
		}
	}()
	if len(h.args) == 0 {
		return h.untilSignal(waiting, cmd, r)
	}
	if waiting.Err() != nil {
		return context.Cause(waiting)
	}
	now := clock.SinceBoot() // before what is left is asked for: the end is never named too late
	p, err := child.Start(r.Context(), child.Command{
		Args:  h.args,
		Env:   append(os.Environ(), h.env, fmt.Sprint("COORDD_TOKEN=", r.Token()), "COORDD_MEMBER="+r.Member()),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Keep: r.Connection(),
		Grace: h.grace, Notice: min(h.grace, h.ttl/6), Until: now + r.Remaining(),
	})
	if err != nil {
		return err
	}
	relay.to(p)
	stop := extend(p, r)
	result := p.Wait()
	stop()
	switch why := r.Err(); {
	case result.Err != nil:
		return fmt.Errorf("%s: run %s: %w", h.what, h.args[0], result.Err)
	case result.Stopped && why != nil:
		return fmt.Errorf("the command was stopped: %w", why)
	case result.Stopped:
		return fmt.Errorf("the command was stopped: %s: %w: %s did not answer for almost as long as it is valid", h.what, coordd.ErrLost, h.from.kind())
	case result.ExitCode() != 0:
		return ended(result.ExitCode())
	}
	return nil
}

// untilSignal holds the right for whoever has started this.
func (h holding) untilSignal(waiting context.Context, cmd *cobra.Command, r right) error {
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), r.Token()); err != nil {
		return err
	}
	cmd.PrintErrf("%s is held until a signal comes\n", h.what)
	select {
	case <-waiting.Done():
		return nil
	case <-r.Context().Done():
		return r.Err()
	}
}

// extendEvery is how often a right is asked for how long it is valid, which costs nothing.
const extendEvery = 100 * time.Millisecond

// extend lets a command run for as long as a right is valid.
func extend(p *child.Process, r right) (stop func()) {
	done := make(chan struct{})
	var loop sync.WaitGroup
	loop.Go(func() {
		tick := time.NewTicker(extendEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if now, left := clock.SinceBoot(), r.Remaining(); left > 0 {
					p.Extend(now + left)
				}
			}
		}
	})
	return func() { close(done); loop.Wait() }
}

// relay passes signals on to a command; while there is none yet, those that end a process end the wait.
type relay struct {
	mu      sync.Mutex
	process *child.Process
	early   os.Signal // came before there was a process
	cancel  context.CancelCauseFunc
}

// relaySignals takes the signals of this process. The context ends with one that ends the wait.
func relaySignals(ctx context.Context) (context.Context, *relay, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &relay{cancel: cancel}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, child.Forwarded()...)
	var loop sync.WaitGroup
	loop.Go(func() {
		for s := range signals {
			r.pass(s)
		}
	})
	return ctx, r, func() {
		signal.Stop(signals)
		close(signals)
		loop.Wait()
		cancel(nil)
	}
}

func (r *relay) pass(s os.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != nil {
		r.process.Signal(s)
		return
	}
	switch s {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM:
		r.early = s
		r.cancel(ended(128 + int(s.(syscall.Signal))))
	}
}

// to names the process that signals are for, also one that came while it was started.
func (r *relay) to(p *child.Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.process = p
	if r.early != nil {
		p.Signal(r.early)
	}
}
