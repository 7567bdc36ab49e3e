package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/render"
)

var lockColumns = []render.Column[httpapi.Lock]{
	{Title: "NAME", Cell: func(l httpapi.Lock) string { return l.Name }},
	{Title: "HOLDER", Cell: func(l httpapi.Lock) string {
		return orDash(ofHolders(l, func(h httpapi.Holder) string { return h.Name }))
	}},
	{Title: "TOKEN", Cell: func(l httpapi.Lock) string { return fmt.Sprint(l.Token) }},
	{Title: "WAITING", Cell: func(l httpapi.Lock) string { return orDash(waiters(l.Waiters)) }},
	{Title: "SINCE", Wide: true, Cell: func(l httpapi.Lock) string {
		return orDash(ofHolders(l, func(h httpapi.Holder) string { return since(&h.Since) }))
	}},
	{Title: "HOLDER ID", Wide: true, Cell: func(l httpapi.Lock) string {
		return orDash(ofHolders(l, func(h httpapi.Holder) string { return h.MemberID }))
	}},
}

func ofHolders(l httpapi.Lock, what func(httpapi.Holder) string) string {
	var all []string
	for _, h := range l.Holders {
		all = append(all, what(h))
	}
	return strings.Join(all, ",")
}

func locksCommand(from *sourceFlags) *cobra.Command {
	var output string
	var free bool
	locks := &cobra.Command{
		Use:   "locks",
		Short: "Show who holds which lock, and who waits for it",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return from.open(cmd.Context(), func(s source) error {
				all, err := s.Locks(cmd.Context())
				if err != nil {
					return err
				}
				if !free {
					all = slices.DeleteFunc(all, func(l httpapi.Lock) bool { return len(l.Holders)+len(l.Waiters) == 0 })
				}
				return render.Write(cmd.OutOrStdout(), output, all, lockColumns)
			})
		},
	}
	outputFlag(locks, &output)
	locks.Flags().BoolVar(&free, "all", false, "also those that nobody holds or wants, with their newest tokens")
	locks.AddCommand(releaseLockCommand(from))
	return locks
}

func releaseLockCommand(from *sourceFlags) *cobra.Command {
	var ask httpapi.Ask
	var force bool
	release := &cobra.Command{
		Use:   "release LOCK --force --reason REASON",
		Short: "Ask everybody who holds a lock to give it up, and wait until they have",
		Long: `Ask everybody who holds a lock to give it up, and wait until they have. They end their work first. A lock is
never taken from a member that lives: one that does not obey in time is condemned, and its session ends
with all that it holds.`,
		Args: oneName("lock"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case !force:
				return usageError{errors.New("this ends the work of who holds the lock: say --force")}
			case ask.Reason == "":
				return usageError{errors.New("say why with --reason: it goes on record")}
			}
			return from.open(cmd.Context(), func(s source) error {
				if err := s.ReleaseLock(cmd.Context(), args[0], ask); err != nil {
					return fmt.Errorf("release: %w", err)
				}
				cmd.PrintErrf("%s was released\n", args[0])
				return nil
			})
		},
	}
	askFlags(release, &ask)
	release.Flags().BoolVar(&force, "force", false, "do it")
	return release
}
