package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/client"
	"github.com/coordd/coordd/lock"
)

func lockCommand(from *sourceFlags) *cobra.Command {
	h := &holding{from: from}
	var permits int
	var shared, noWait bool
	command := &cobra.Command{
		Use:   "lock NAME [-- COMMAND [ARG...]]",
		Short: "Hold a lock while a command runs, or until a signal",
		Long: `Hold a lock while a command runs. The command has no shell, a process group of its own, and in its
environment COORDD_LOCK, COORDD_TOKEN (which grows with each holder, for ever) and COORDD_MEMBER. Signals are
passed on to it. When the lock is lost, all of its processes are told SIGTERM, and killed before another can hold
it. Its end frees the lock at once, and its exit code is that of coordd; ` + "`coordd --help`" + ` has the others.

Without a command the lock is held until a signal, or until it is lost; its token is printed.`,
		Example: `  coordd lock nightly-report --no-wait -- ./report.sh
  coordd lock deploy --wait 10m -- ssh app-7 ./deploy
  coordd lock uploads -n 3 -- ./upload`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			name, command, err := nameAndCommand(cmd, args)
			if err != nil {
				return err
			}
			h.what, h.env, h.args = fmt.Sprintf("lock %q", name), "COORDD_LOCK="+name, command
			request := lock.Exclusive(name)
			h.want = client.Want{Lock: name, Shared: shared, NoWait: noWait}
			switch {
			case shared && cmd.Flags().Changed("permits"):
				return usageError{errors.New("--shared and --permits say two things: leave out one")}
			case noWait && h.wait > 0:
				return usageError{errors.New("--wait and --no-wait say two things: leave out one")}
			case shared:
				request = lock.Shared(name)
			case cmd.Flags().Changed("permits"):
				if permits < 1 {
					return usageError{errors.New("--permits is at least 1")}
				}
				request, h.want.Permits = lock.Semaphore(name, permits), permits
			}
			take := lock.Acquire
			if noWait {
				take = lock.Try
			}
			h.take = func(ctx context.Context, s *heartbeat.Session) (held, error) { return take(ctx, s, request) }
			h.busy = func(ctx context.Context, s source) string {
				l, err := s.Lock(ctx, name)
				if err != nil || l.Holder == "" {
					return ""
				}
				return fmt.Sprintf(" (%s holds it)", lockColumns[1].Cell(l))
			}
			return h.run(cmd)
		},
	}
	h.add(command)
	f := command.Flags()
	f.IntVarP(&permits, "permits", "n", 1, "so many may hold it at a time; all who ask should say the same number")
	f.BoolVar(&shared, "shared", false, "any number may hold it at a time that say this, and nobody else meanwhile")
	f.DurationVar(&h.wait, "wait", 0, "how long to wait for it; 0: for ever")
	f.BoolVar(&noWait, "no-wait", false, "do not wait if somebody else holds it")
	return command
}
