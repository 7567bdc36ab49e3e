package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/render"
)

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", strings.Join(render.Formats, "|"))
}

func membersCommand(from *sourceFlags) *cobra.Command {
	var output string
	var watch bool
	filter := httpapi.Filter{All: true}
	members := &cobra.Command{
		Use:   "members",
		Short: "Show who is alive, and who has left or died",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			if err := filter.Check(); err != nil {
				return err
			}
			return from.open(cmd.Context(), func(s source) error {
				if watch {
					return watchMembers(cmd, s, filter, output)
				}
				return showMembers(cmd.Context(), cmd.OutOrStdout(), s, filter, output)
			})
		},
	}
	outputFlag(members, &output)
	members.Flags().BoolVarP(&watch, "watch", "w", false, "show them again whenever they change, until interrupted")
	members.Flags().BoolVar(&filter.Clients, "clients", false, "clients too: commands that hold something for a while, as coordd lock does")
	members.Flags().StringSliceVar(&filter.State, "state", nil, "only those in this state; repeatable")
	return members
}

// How long a command waits for the database, and one that writes many rows at once.
const (
	readWithin = 5 * time.Second
	manyWithin = 30 * time.Second
)

func showMembers(ctx context.Context, w io.Writer, from source, filter httpapi.Filter, output string) error {
	members, err := from.Members(ctx, filter)
	if err != nil {
		return err
	}
	return render.Write(w, output, members, memberColumns)
}

var memberColumns = []render.Column[httpapi.Member]{
	{Title: "NAME", Cell: func(m httpapi.Member) string { return m.Name }},
	{Title: "STATE", Cell: func(m httpapi.Member) string {
		if m.Overdue {
			return m.State + " (silent)"
		}
		return m.State
	}},
	{Title: "LAST SEEN", Cell: func(m httpapi.Member) string { return age(m.AgeMS) }},
	{Title: "ADDRESS", Cell: func(m httpapi.Member) string { return orDash(m.Address) }},
	{Title: "KIND", Wide: true, Cell: func(m httpapi.Member) string { return m.Kind }},
	{Title: "VERSION", Wide: true, Cell: func(m httpapi.Member) string { return orDash(m.Version) }},
	{Title: "LABELS", Wide: true, Cell: func(m httpapi.Member) string { return orDash(labels(m.Labels)) }},
	{Title: "HELD", Wide: true, Cell: func(m httpapi.Member) string { return fmt.Sprint(m.Held) }},
	{Title: "SLOTS", Wide: true, Cell: func(m httpapi.Member) string { return fmt.Sprint(m.Slots) }},
	{Title: "LOAD", Wide: true, Cell: func(m httpapi.Member) string { return busy(m.Load) }},
	{Title: "TTL", Wide: true, Cell: func(m httpapi.Member) string { return (time.Duration(m.TTLMS) * time.Millisecond).String() }},
	{Title: "JOINED", Wide: true, Cell: func(m httpapi.Member) string { return m.JoinedAt.Format(time.DateTime) }},
	{Title: "ID", Wide: true, Cell: func(m httpapi.Member) string { return m.ID }},
}

// watchMembers shows the members whenever one has come, gone or changed its state; on a
// terminal each second, as their ages change. A database that is away is waited for.
func watchMembers(cmd *cobra.Command, from source, filter httpapi.Filter, output string) error {
	out := cmd.OutOrStdout()
	screen := output == "table" || output == "wide"
	screen = screen && isTerminal(out)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for shown := "nothing"; ; {
		members, err := from.Members(cmd.Context(), filter)
		switch now := fingerprint(members); {
		case cmd.Context().Err() != nil:
			return nil
		case err != nil:
			cmd.PrintErrf("coordd: %v\n", err)
		case screen:
			fmt.Fprint(out, "\x1b[H\x1b[2J")
			fallthrough
		case now != shown:
			if err := render.Write(out, output, members, memberColumns); err != nil {
				return err
			}
			shown = now
		}
		select {
		case <-tick.C:
		case <-cmd.Context().Done():
			return nil
		}
	}
}

// fingerprint changes when the members do, and not with their ages.
func fingerprint(members []httpapi.Member) string {
	var b strings.Builder
	for _, m := range members {
		fmt.Fprintln(&b, m.ID, m.State, m.Overdue)
	}
	return b.String()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
