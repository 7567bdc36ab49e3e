package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/doctor"
	"github.com/coordd/coordd/internal/render"
)

func doctorCommand(from *sourceFlags) *cobra.Command {
	var output string
	var ttl time.Duration
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the database, and say how to mend what is wrong",
		Long: `Examine the database as this user reaches it from this host, and say how to mend what is
wrong. It writes nothing.

It exits with 0 if nothing has failed, warnings or not; with 1 if something has; and with 3 if there
was no database to examine.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			if from.addr != "" && from.origins["ttl"] == fromFlag {
				return usageError{errors.New("a daemon examines for its own TTL: leave out --ttl, or --addr")}
			}
			if err := (heartbeat.Config{Name: "doctor", TTL: ttl}).Validate(); err != nil {
				return err
			}
			findings, unreachable, err := examine(cmd.Context(), from, ttl)
			if err != nil {
				return err
			}
			if err := writeFindings(cmd.OutOrStdout(), findings, output); err != nil {
				return err
			}
			return summed(findings, unreachable)
		},
	}
	outputFlag(command, &output)
	command.Flags().DurationVar(&ttl, "ttl", heartbeat.DefaultTTL, "the TTL of the sessions that it is to carry")
	return command
}

// examine asks a daemon, or examines the database from here. Unreachable is why there was no
// database to examine.
func examine(ctx context.Context, from *sourceFlags, ttl time.Duration) (findings []httpapi.Finding, unreachable, err error) {
	if from.addr != "" {
		err = from.open(ctx, func(s source) error {
			findings, err = s.Doctor(ctx)
			return err
		})
		for _, f := range findings {
			if f.Name == doctor.Connection && f.Verdict == httpapi.Failed {
				unreachable = fmt.Errorf("daemon %s: %w: %s", from.addr, errNotExamined, f.Found)
			}
		}
		return findings, unreachable, err
	}
	target, err := from.target()
	if err != nil {
		return nil, nil, err
	}
	found := doctor.Examine(ctx, target, doctor.Config{TTL: ttl})
	if first := found[0]; first.Verdict == doctor.Failed {
		unreachable = first.Err
	}
	return showFindings(found), unreachable, nil
}

// writeFindings shows people what to do after all that was found, where it has room.
func writeFindings(w io.Writer, findings []httpapi.Finding, output string) error {
	if err := render.Write(w, output, findings, findingColumns); err != nil || output != "table" {
		return err
	}
	findings = slices.DeleteFunc(findings, func(f httpapi.Finding) bool { return f.Fix == "" })
	if len(findings) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return render.Write(w, output, findings, fixColumns)
}

var findingColumns = []render.Column[httpapi.Finding]{
	{Title: "NAME", Cell: func(f httpapi.Finding) string { return f.Name }},
	{Title: "VERDICT", Cell: func(f httpapi.Finding) string { return f.Verdict }},
	{Title: "FOUND", Cell: func(f httpapi.Finding) string { return f.Found }},
	{Title: "FIX", Wide: true, Cell: func(f httpapi.Finding) string { return orDash(f.Fix) }},
}

var fixColumns = []render.Column[httpapi.Finding]{
	findingColumns[0],
	{Title: "WHAT TO DO", Cell: func(f httpapi.Finding) string { return f.Fix }},
}

// summed is the error that gives the command its exit code.
func summed(findings []httpapi.Finding, unreachable error) error {
	var failed []string
	for _, f := range findings {
		if f.Verdict == httpapi.Failed {
			failed = append(failed, f.Name)
		}
	}
	switch {
	case unreachable != nil:
		return unreachable
	case failed == nil:
		return nil
	}
	return fmt.Errorf("%d of %d findings have failed: %s", len(failed), len(findings), strings.Join(failed, ", "))
}
