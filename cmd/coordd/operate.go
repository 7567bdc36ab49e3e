package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd/httpapi"
)

// oneMember is cobra.ExactArgs(1) with the exit code of a wrong command line.
func oneMember(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("%s takes the name or the id of one member (see `%s --help`)", cmd.CommandPath(), cmd.CommandPath())}
	}
	return nil
}

func drainCommand(from *sourceFlags) *cobra.Command {
	var reason string
	var wait time.Duration
	drain := &cobra.Command{
		Use:   "drain NAME",
		Short: "Ask a member to hand over its leaderships and jobs, and take no others",
		Long: `Ask a member to hand over its leaderships and jobs, and take no others. It goes on beating; undrain
takes that back. Locks that it holds stay until their holders release them, and programs may take
more by it: end those to have it hold none.

With --wait the command returns when the member has noticed, leads nothing, has no jobs and holds no
lock, or is gone; or with exit code 1 when the time is over: it drains on.`,
		Args: oneMember,
		RunE: func(cmd *cobra.Command, args []string) error {
			return from.open(cmd.Context(), func(s source) error {
				m, err := s.Drain(cmd.Context(), args[0], reason)
				if err != nil {
					return fmt.Errorf("drain %s: %w", args[0], err)
				}
				cmd.PrintErrf("%s (%s) drains\n", m.Name, m.ID)
				if wait == 0 {
					return nil
				}
				return awaitDrained(cmd, s, m, wait)
			})
		},
	}
	drain.Flags().StringVar(&reason, "reason", "", "why, for the record")
	drain.Flags().DurationVar(&wait, "wait", 0, "how long to wait until it holds nothing")
	return drain
}

// awaitDrained waits until a member holds nothing, and tells what it still holds. One that has not beaten since it was
// asked does not know yet, and may take more.
func awaitDrained(cmd *cobra.Command, s source, m httpapi.Member, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), wait)
	defer cancel()
	asked := time.Now()
	for told := ""; ; {
		since := time.Since(asked)
		now, err := s.Member(ctx, m.ID)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("drain %s: it holds %s after %v, and drains on", m.Name, orNothing(told), wait)
		case err != nil:
			return err
		case now.State != "alive" && now.State != "draining":
			cmd.PrintErrf("%s is %s\n", m.Name, now.State)
			return nil
		case now.Held+now.Slots == 0 && now.AgeMS < since.Milliseconds():
			cmd.PrintErrf("%s holds nothing\n", m.Name)
			return nil
		}
		if held := holds(now); held != told && held != "" {
			told = held
			cmd.PrintErrf("%s holds %s\n", m.Name, held)
		}
		pause(ctx, 200*time.Millisecond, nil)
	}
}

// holds says what a member has.
func holds(m httpapi.Member) string {
	var parts []string
	if m.Held > 0 {
		parts = append(parts, fmt.Sprintf("%d rights", m.Held))
	}
	if m.Slots > 0 {
		parts = append(parts, fmt.Sprintf("%d slots of jobs", m.Slots))
	}
	return strings.Join(parts, " and ")
}

func orNothing(s string) string {
	if s == "" {
		return "an unknown number of rights"
	}
	return s
}

func undrainCommand(from *sourceFlags) *cobra.Command {
	return operateCommand(from, "undrain NAME", "Take a drain back", "is alive again", source.Undrain)
}

func forgetCommand(from *sourceFlags) *cobra.Command {
	forget := operateCommand(from, "forget NAME", "Refuse a member's beats from now on", "is condemned", source.Forget)
	forget.Long = `Refuse a member's beats from now on: its session is lost with the next one, and it is dead, with
all that it held free, when its right has run out for those who watch. A process that still
works joins again under a new id; stop it first if it must not.`
	yes := false
	forget.Flags().BoolVar(&yes, "yes", false, "do it")
	run := forget.RunE
	forget.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes {
			return usageError{errors.New("this ends the member's session with all that it holds: say --yes")}
		}
		return run(cmd, args)
	}
	return forget
}

func operateCommand(from *sourceFlags, use, short, done string, do func(source, context.Context, string, string) (httpapi.Member, error)) *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  oneMember,
		RunE: func(cmd *cobra.Command, args []string) error {
			return from.open(cmd.Context(), func(s source) error {
				m, err := do(s, cmd.Context(), args[0], reason)
				if err != nil {
					return fmt.Errorf("%s %s: %w", cmd.Name(), args[0], err)
				}
				cmd.PrintErrf("%s (%s) %s\n", m.Name, m.ID, done)
				return nil
			})
		},
	}
	command.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return command
}
