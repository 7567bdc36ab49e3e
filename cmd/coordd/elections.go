package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/render"
)

var electionColumns = []render.Column[httpapi.Election]{
	{Title: "NAME", Cell: func(e httpapi.Election) string { return e.Name }},
	{Title: "LEADER", Cell: func(e httpapi.Election) string { return orDash(e.Leader) }},
	{Title: "TERM", Cell: func(e httpapi.Election) string { return fmt.Sprint(e.Term) }},
	{Title: "CANDIDATES", Cell: func(e httpapi.Election) string { return orDash(waiters(e.Candidates)) }},
	{Title: "SINCE", Wide: true, Cell: func(e httpapi.Election) string { return since(e.Since) }},
	{Title: "ADDRESS", Wide: true, Cell: func(e httpapi.Election) string { return orDash(e.Address) }},
	{Title: "VALUE", Wide: true, Cell: func(e httpapi.Election) string { return orDash(e.Value) }},
	{Title: "LEADER ID", Wide: true, Cell: func(e httpapi.Election) string { return orDash(e.LeaderID) }},
}

// leaderColumns begin with who leads, and not with what.
var leaderColumns = append([]render.Column[httpapi.Election]{electionColumns[1], electionColumns[2]}, electionColumns[4:]...)

// oneName is cobra.ExactArgs(1) with the exit code of a wrong command line.
func oneName(of string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("%s takes the name of one %s (see `%s --help`)", cmd.CommandPath(), of, cmd.CommandPath())}
		}
		return nil
	}
}

func electionsCommand(from *sourceFlags) *cobra.Command {
	var output string
	elections := &cobra.Command{
		Use:   "elections",
		Short: "Show who leads what, and who waits to",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return from.open(cmd.Context(), func(s source) error {
				all, err := s.Elections(cmd.Context())
				if err != nil {
					return err
				}
				return render.Write(cmd.OutOrStdout(), output, all, electionColumns)
			})
		},
	}
	outputFlag(elections, &output)
	return elections
}

func leaderCommand(from *sourceFlags) *cobra.Command {
	var output string
	var wait time.Duration
	leader := &cobra.Command{
		Use:   "leader ELECTION",
		Short: "Show who leads",
		Long: `Show who leads. It exits with 1 if nobody does; with --wait it waits until somebody does, or exits with
75 when the time is over. -o name prints the leader's name and nothing else.`,
		Args: oneName("election"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return from.open(cmd.Context(), func(s source) error {
				e, err := awaitLeader(cmd.Context(), s, args[0], wait)
				if err != nil {
					return err
				}
				return render.Write(cmd.OutOrStdout(), output, []httpapi.Election{e}, leaderColumns)
			})
		},
	}
	outputFlag(leader, &output)
	leader.Flags().DurationVar(&wait, "wait", 0, "how long to wait until somebody leads")
	return leader
}

// awaitLeader waits until somebody leads, for a while.
func awaitLeader(ctx context.Context, s source, name string, wait time.Duration) (httpapi.Election, error) {
	deadline := time.Now().Add(wait)
	for {
		e, err := s.Election(ctx, name)
		switch {
		case err != nil && !errors.Is(err, coordd.ErrNone):
			return e, err
		case err == nil && e.Leader != "":
			return e, nil
		case wait == 0:
			return e, fmt.Errorf("election %q: %w: nobody leads", name, coordd.ErrNone)
		case time.Now().After(deadline):
			return e, fmt.Errorf("election %q: nobody leads after %v: %w", name, wait, errTimedOut)
		}
		pause(ctx, 200*time.Millisecond, nil)
	}
}

func since(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// waiters are the first of those who wait, by name, and how many more there are.
func waiters(all []httpapi.Candidate) (shown string) {
	const most = 3
	for i, w := range all {
		switch {
		case i == most:
			return fmt.Sprintf("%s and %d more", shown, len(all)-most)
		case i > 0:
			shown += ","
		}
		shown += w.Name
	}
	return shown
}

// askFlags say how to ask somebody to give up what he holds.
func askFlags(cmd *cobra.Command, ask *httpapi.Ask) {
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, for the record")
	cmd.Flags().DurationVar(&ask.Within, "within", 30*time.Second, "how long the holder has to obey, 1m at the most; one that does not is condemned, and loses all that it holds")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if ask.Within < 0 || ask.Within > httpapi.MaxWithin {
			return usageError{fmt.Errorf("--within is between 0s and %v", httpapi.MaxWithin)}
		}
		return nil
	}
}

func resignCommand(from *sourceFlags) *cobra.Command {
	var ask httpapi.Ask
	resign := &cobra.Command{
		Use:   "resign ELECTION",
		Short: "Ask the leader to give up, and wait until it has",
		Long: `Ask the leader to give up, and wait until it has. It ends its work first; the next in line is elected then. A
leadership is never taken from a member that lives: one that does not obey in time is condemned, and
its session ends with all that it holds.`,
		Args: oneName("election"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return from.open(cmd.Context(), func(s source) error {
				if err := s.Resign(cmd.Context(), args[0], ask); err != nil {
					return fmt.Errorf("resign: %w", err)
				}
				cmd.PrintErrf("the leader of %s has resigned\n", args[0])
				return nil
			})
		},
	}
	askFlags(resign, &ask)
	return resign
}

func transferCommand(from *sourceFlags) *cobra.Command {
	var ask httpapi.Ask
	transfer := &cobra.Command{
		Use:   "transfer ELECTION MEMBER",
		Short: "Ask the leader to give up in favour of a candidate, by name or id",
		Long: `Ask the leader to give up in favour of a candidate, by name or id, and wait until it has. The candidate comes
before all others then; should it die meanwhile, the next in line is elected.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("%s takes the name of an election, and the name or the id of a candidate (see `%s --help`)", cmd.CommandPath(), cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return from.open(cmd.Context(), func(s source) error {
				if err := s.Transfer(cmd.Context(), args[0], args[1], ask); err != nil {
					return fmt.Errorf("transfer: %w", err)
				}
				cmd.PrintErrf("the leader of %s has resigned, and %s comes next\n", args[0], args[1])
				return nil
			})
		},
	}
	askFlags(transfer, &ask)
	return transfer
}
