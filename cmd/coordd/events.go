package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/client"
	"github.com/coordd/coordd/internal/render"
)

var eventColumns = []render.Column[httpapi.Event]{
	{Title: "REVISION", Cell: func(e httpapi.Event) string { return fmt.Sprint(e.Revision) }},
	{Title: "AT", Cell: func(e httpapi.Event) string { return e.At.Local().Format(time.DateTime) }},
	{Title: "TOPIC", Cell: func(e httpapi.Event) string { return e.Topic }},
	{Title: "SUBJECT", Cell: func(e httpapi.Event) string { return e.Subject }},
	{Title: "ACTION", Cell: func(e httpapi.Event) string { return e.Action }},
	{Title: "MEMBER", Wide: true, Cell: func(e httpapi.Event) string { return orDash(e.MemberID) }},
	{Title: "DATA", Wide: true, Cell: func(e httpapi.Event) string { return string(e.Data) }},
}

// mostEvents is what one page may have.
const mostEvents = 1000

func eventsCommand(from *sourceFlags) *cobra.Command {
	var output string
	query := client.Query{}
	events := &cobra.Command{
		Use:   "events",
		Short: "Show what has changed, the oldest first",
		Long: `Show what has changed, the oldest first. Without --after it begins with the oldest event that
is kept; ask for more after the last revision that was shown.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			if !cmd.Flags().Changed("after") {
				query.After = -1
			} else if query.After < 0 {
				return usageError{errors.New("--after is a revision, and not negative")}
			}
			if query.Limit < 1 || query.Limit > mostEvents {
				return usageError{fmt.Errorf("--limit is 1 to %d", mostEvents)}
			}
			return from.open(cmd.Context(), func(s source) error {
				page, err := s.Events(cmd.Context(), query)
				if err != nil {
					return fmt.Errorf("events: %w", err)
				}
				return render.Write(cmd.OutOrStdout(), output, page.Events, eventColumns)
			})
		},
	}
	outputFlag(events, &output)
	events.Flags().Int64Var(&query.After, "after", 0, "only those after this revision")
	events.Flags().IntVar(&query.Limit, "limit", 100, "how many at most")
	events.Flags().StringSliceVar(&query.Topic, "topic", nil, "only those of this topic; repeatable")
	return events
}

func watchCommand(from *sourceFlags) *cobra.Command {
	var output string
	var after int64
	var topics []string
	watch := &cobra.Command{
		Use:   "watch",
		Short: "Show each change as it is committed, until interrupted",
		Long: `Show each change as it is committed, until interrupted. Nothing is left out: with --after it
begins after a revision; without, with the next change. An outage only delays it.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			if !cmd.Flags().Changed("after") {
				after = -1
			} else if after < 0 {
				return usageError{errors.New("--after is a revision, and not negative")}
			}
			return from.open(cmd.Context(), func(s source) error {
				for e, err := range s.Watch(cmd.Context(), after, topics...) {
					if err != nil {
						return fmt.Errorf("watch: %w", err)
					}
					if err := writeEvent(cmd.OutOrStdout(), output, e); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	outputFlag(watch, &output)
	watch.Flags().Int64Var(&after, "after", 0, "begin after this revision")
	watch.Flags().StringSliceVar(&topics, "topic", nil, "only those of this topic; repeatable")
	return watch
}

// writeEvent writes one event of a stream, on a line of its own where a person reads it. JSON of
// a stream is one object a line.
func writeEvent(w io.Writer, output string, e httpapi.Event) error {
	switch output {
	case "json", "jsonl":
		return json.NewEncoder(w).Encode(e)
	case "table", "wide":
		line := fmt.Sprintf("%d  %s  %s %s %s", e.Revision, e.At.Local().Format(time.DateTime), e.Topic, e.Subject, e.Action)
		if output == "wide" {
			line += "  " + orDash(e.MemberID) + "  " + string(e.Data)
		}
		_, err := fmt.Fprintln(w, line)
		return err
	}
	return render.Write(w, output, []httpapi.Event{e}, eventColumns)
}

func statusCommand(from *sourceFlags) *cobra.Command {
	var output string
	status := &cobra.Command{
		Use:   "status",
		Short: "Show how the database stands and, with --addr, a daemon and its sessions",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return from.open(cmd.Context(), func(s source) error {
				st, err := s.Status(cmd.Context())
				if err != nil {
					return fmt.Errorf("status: %w", err)
				}
				if output != "table" && output != "wide" {
					return render.Write(cmd.OutOrStdout(), output, []httpapi.Status{st}, statusColumns)
				}
				return showStatus(cmd.OutOrStdout(), st)
			})
		},
	}
	outputFlag(status, &output)
	return status
}

var statusColumns = []render.Column[httpapi.Status]{
	{Title: "DATABASE", Cell: func(s httpapi.Status) string { return s.Database.Product }},
}

// showStatus shows a status to people.
func showStatus(w io.Writer, s httpapi.Status) error {
	d := s.Database
	history := "as it was"
	switch {
	case !d.Intact:
		history = "lost: the next member to look or to join records it"
	case d.Quarantined:
		history = "lost: in quarantine, nothing is granted yet"
	}
	lines := [][2]string{
		{"version", s.Version}, {"database", d.Product}, {"tables", fmt.Sprint("version ", d.Schema)},
		{"history", history}, {"revision", fmt.Sprint(d.Revision)}, {"members", counts(d.Members)},
	}
	if d.Problem != nil { // nothing else is known of it
		lines = [][2]string{{"version", s.Version}, {"database", d.Problem.Error()}}
	}
	for _, session := range s.Sessions {
		lines = append(lines, [2]string{"session " + session.Name, fmt.Sprintf("%s, beats %d, failed %d, latency %d ms", session.Status, session.Beats, session.Failures, session.LatencyMS)})
	}
	for _, loop := range s.Loops {
		last := "never"
		if !loop.LastSuccess.IsZero() {
			last = age(time.Since(loop.LastSuccess).Milliseconds())
		}
		lines = append(lines, [2]string{"loop " + loop.Name, "last success " + last})
	}
	return render.Write(w, "table", lines, []render.Column[[2]string]{
		{Title: "WHAT", Cell: func(l [2]string) string { return l[0] }},
		{Title: "HOW IT STANDS", Cell: func(l [2]string) string { return orDash(l[1]) }},
	})
}
