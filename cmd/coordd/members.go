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

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/render"
)

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", strings.Join(render.Formats, "|"))
}

func membersCommand(database *databaseFlag) *cobra.Command {
	var output string
	var watch bool
	members := &cobra.Command{
		Use:   "members",
		Short: "Show who is alive, and who has left or died",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return database.use(cmd.Context(), readWithin, false, func(db *coordd.DB) error {
				if err := db.CheckSchema(cmd.Context()); err != nil {
					return err
				}
				if watch {
					return watchMembers(cmd, db, output)
				}
				return showMembers(cmd.Context(), cmd.OutOrStdout(), db, output)
			})
		},
	}
	outputFlag(members, &output)
	members.Flags().BoolVarP(&watch, "watch", "w", false, "show them again whenever they change, until interrupted")
	return members
}

// readWithin is how long a reading command waits for the database.
const readWithin = 5 * time.Second

func readMembers(ctx context.Context, db *coordd.DB) ([]heartbeat.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	return heartbeat.Members(ctx, db)
}

func showMembers(ctx context.Context, w io.Writer, db *coordd.DB, output string) error {
	members, err := readMembers(ctx, db)
	if err != nil {
		return err
	}
	return render.Write(w, output, httpapi.Members(members), memberColumns)
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
	{Title: "VERSION", Wide: true, Cell: func(m httpapi.Member) string { return orDash(m.Version) }},
	{Title: "LABELS", Wide: true, Cell: func(m httpapi.Member) string { return orDash(labels(m.Labels)) }},
	{Title: "TTL", Wide: true, Cell: func(m httpapi.Member) string { return (time.Duration(m.TTLMS) * time.Millisecond).String() }},
	{Title: "JOINED", Wide: true, Cell: func(m httpapi.Member) string { return m.JoinedAt.Format(time.DateTime) }},
	{Title: "ID", Wide: true, Cell: func(m httpapi.Member) string { return m.ID }},
}

// watchMembers shows the members whenever one has come, gone or changed its state; on a
// terminal each second, as their ages change. A database that is away is waited for.
func watchMembers(cmd *cobra.Command, db *coordd.DB, output string) error {
	out := cmd.OutOrStdout()
	screen := output == "table" || output == "wide"
	screen = screen && isTerminal(out)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for shown := "nothing"; ; {
		members, err := readMembers(cmd.Context(), db)
		switch now := fingerprint(members); {
		case cmd.Context().Err() != nil:
			return nil
		case err != nil:
			cmd.PrintErrf("coordd: %v\n", err)
		case screen:
			fmt.Fprint(out, "\x1b[H\x1b[2J")
			fallthrough
		case now != shown:
			if err := render.Write(out, output, httpapi.Members(members), memberColumns); err != nil {
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
func fingerprint(members []heartbeat.Member) string {
	var b strings.Builder
	for _, m := range members {
		fmt.Fprintln(&b, m.ID, m.State, m.Overdue())
	}
	return b.String()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
