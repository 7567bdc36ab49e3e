package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/render"
)

func assignCommand(from *sourceFlags) *cobra.Command {
	command := &cobra.Command{
		Use:   "assign",
		Short: "Who looks after how many jobs of a group, and what would move: show, preview, groups, define",
		Args:  knownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(assignShowCommand(from), assignPreviewCommand(from), assignGroupsCommand(from), assignDefineCommand(from))
	return command
}

var shareColumns = []render.Column[httpapi.Share]{
	{Title: "MEMBER", Cell: func(s httpapi.Share) string { return cmp.Or(s.Member, "(nobody)") }},
	{Title: "STATE", Cell: func(s httpapi.Share) string { return orDash(s.State) }},
	{Title: "SLOTS", Cell: func(s httpapi.Share) string { return fmt.Sprint(s.Slots) }},
	{Title: "JOBS", Cell: func(s httpapi.Share) string { return fmt.Sprint(s.Jobs) }},
	{Title: "MOVING", Cell: moving},
	{Title: "WEIGHT", Wide: true, Cell: func(s httpapi.Share) string { return fmt.Sprint(s.Weight) }},
	{Title: "ID", Wide: true, Cell: func(s httpapi.Share) string { return orDash(s.MemberID) }},
}

// moving tells of slots that come and go.
func moving(s httpapi.Share) string {
	var parts []string
	if s.Coming > 0 {
		parts = append(parts, fmt.Sprintf("+%d", s.Coming))
	}
	if s.Leaving > 0 {
		parts = append(parts, fmt.Sprintf("-%d", s.Leaving))
	}
	return orDash(strings.Join(parts, " "))
}

func assignShowCommand(from *sourceFlags) *cobra.Command {
	var output string
	var watch bool
	show := &cobra.Command{
		Use:   "show GROUP",
		Short: "Show what each member has of a group",
		Args:  oneGroup,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return from.open(cmd.Context(), func(s source) error {
				if watch {
					return watchShares(cmd, s, args[0], output)
				}
				shares, err := s.Shares(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return render.Write(cmd.OutOrStdout(), output, shares, shareColumns)
			})
		},
	}
	outputFlag(show, &output)
	show.Flags().BoolVarP(&watch, "watch", "w", false, "show it again whenever it changes, until interrupted")
	return show
}

// watchShares shows the shares whenever they have changed.
func watchShares(cmd *cobra.Command, s source, group, output string) error {
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	for shown := ""; ; {
		shares, err := s.Shares(cmd.Context(), group)
		switch now := fmt.Sprint(shares); {
		case cmd.Context().Err() != nil:
			return nil
		case errors.Is(err, assign.ErrNoGroup):
			return err
		case err != nil:
			cmd.PrintErrf("coordd: %v\n", err)
		case now != shown:
			shown = now
			if err := render.Write(cmd.OutOrStdout(), output, shares, shareColumns); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-cmd.Context().Done():
			return nil
		}
	}
}

// route is how many slots and jobs would go from one member to another.
type route struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Slots int    `json:"slots"`
	Jobs  int    `json:"jobs"`
}

var routeColumns = []render.Column[route]{
	{Title: "FROM", Cell: func(r route) string { return cmp.Or(r.From, "(nobody)") }},
	{Title: "TO", Cell: func(r route) string { return cmp.Or(r.To, "(nobody)") }},
	{Title: "SLOTS", Cell: func(r route) string { return fmt.Sprint(r.Slots) }},
	{Title: "JOBS", Cell: func(r route) string { return fmt.Sprint(r.Jobs) }},
}

var moveColumns = []render.Column[httpapi.Move]{
	{Title: "SLOT", Cell: func(m httpapi.Move) string { return fmt.Sprint(m.Slot) }},
	{Title: "FROM", Cell: func(m httpapi.Move) string { return cmp.Or(m.From, "(nobody)") }},
	{Title: "TO", Cell: func(m httpapi.Move) string { return cmp.Or(m.To, "(nobody)") }},
	{Title: "JOBS", Cell: func(m httpapi.Move) string { return fmt.Sprint(m.Jobs) }},
}

func assignPreviewCommand(from *sourceFlags) *cobra.Command {
	var output string
	var without, with []string
	var slots bool
	preview := &cobra.Command{
		Use:   "preview GROUP --without NAME --with NAME",
		Short: "Show how much would move if members went or came, and changes nothing",
		Args:  oneGroup,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return from.open(cmd.Context(), func(s source) error {
				p, err := s.Preview(cmd.Context(), args[0], without, with)
				if err != nil {
					return err
				}
				if slots {
					err = render.Write(cmd.OutOrStdout(), output, p.Moves, moveColumns)
				} else {
					err = render.Write(cmd.OutOrStdout(), output, routes(p), routeColumns)
				}
				if err == nil {
					cmd.PrintErrf("%d slots with %d jobs would move\n", p.Slots, p.Jobs)
				}
				return err
			})
		},
	}
	outputFlag(preview, &output)
	f := preview.Flags()
	f.StringSliceVar(&without, "without", nil, "as if the member of this name were gone; repeatable")
	f.StringSliceVar(&with, "with", nil, "as if a member of this name and of weight 1 had come; repeatable")
	f.BoolVar(&slots, "slots", false, "show each slot, and not only how many go where")
	return preview
}

// routes sums moves up.
func routes(p httpapi.Preview) []route {
	all := []route{}
	at := map[[2]string]int{}
	for _, m := range p.Moves {
		way := [2]string{m.From, m.To}
		i, known := at[way]
		if !known {
			i = len(all)
			at[way] = i
			all = append(all, route{From: m.From, To: m.To})
		}
		all[i].Slots++
		all[i].Jobs += m.Jobs
	}
	return all
}

var groupColumns = []render.Column[httpapi.Group]{
	{Title: "GROUP", Cell: func(g httpapi.Group) string { return g.Name }},
	{Title: "SLOTS", Cell: func(g httpapi.Group) string { return fmt.Sprint(g.Slots) }},
	{Title: "STRATEGY", Cell: func(g httpapi.Group) string { return g.Strategy }},
	{Title: "SELECTOR", Cell: func(g httpapi.Group) string { return orDash(labels(g.Selector)) }},
	{Title: "MOVE CAP", Wide: true, Cell: func(g httpapi.Group) string { return fmt.Sprintf("%d %%", g.MoveCap) }},
	{Title: "GATHER", Wide: true, Cell: func(g httpapi.Group) string { return millis(g.GatherMS) }},
	{Title: "RESTART GRACE", Wide: true, Cell: func(g httpapi.Group) string { return millis(g.RestartGraceMS) }},
	{Title: "OBEY", Wide: true, Cell: func(g httpapi.Group) string { return millis(g.ObeyMS) }},
}

func millis(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

func assignGroupsCommand(from *sourceFlags) *cobra.Command {
	var output string
	groups := &cobra.Command{
		Use:   "groups",
		Short: "Show the groups of jobs",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return from.open(cmd.Context(), func(s source) error {
				groups, err := s.Groups(cmd.Context())
				if err != nil {
					return err
				}
				return render.Write(cmd.OutOrStdout(), output, groups, groupColumns)
			})
		},
	}
	outputFlag(groups, &output)
	return groups
}

func assignDefineCommand(from *sourceFlags) *cobra.Command {
	var o groupOptions
	define := &cobra.Command{
		Use:   "define GROUP",
		Short: "Make a group, or give it other options",
		Long: `Make a group, or give it other options. What no flag says is the default where the group is made,
and stays as it is where it is there.`,
		Example: `  coordd assign define monitors --slots 480
  coordd assign define monitors --move-cap 20     its other options stay as they are`,
		Args: oneGroup,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.noSelector && len(o.selector) > 0 {
				return usageError{errors.New("--selector and --no-selector contradict each other: leave out one")}
			}
			return from.open(cmd.Context(), func(s source) error {
				there, err := s.Group(cmd.Context(), args[0])
				if errors.Is(err, assign.ErrNoGroup) {
					there, err = httpapi.Group{Name: args[0]}, nil
				}
				if err != nil {
					return err
				}
				defined, err := s.Define(cmd.Context(), o.over(there, cmd.Flags().Changed))
				if err == nil {
					cmd.PrintErrf("group %s has %d slots, strategy %s\n", defined.Name, defined.Slots, defined.Strategy)
				}
				return err
			})
		},
	}
	o.add(define.Flags())
	return define
}

// groupOptions are the flags of a group.
type groupOptions struct {
	slots, moveCap             int
	strategy                   string
	selector                   map[string]string
	noSelector                 bool
	gather, restartGrace, obey time.Duration
}

func (o *groupOptions) add(f *pflag.FlagSet) {
	f.IntVar(&o.slots, "slots", 0, fmt.Sprintf("how many, fixed when it is made (default %d, or as many as it has)", assign.DefaultSlots))
	f.StringVar(&o.strategy, "strategy", "", strings.Join(assign.Strategies(), "|")+" (default "+assign.DefaultStrategy+")")
	f.StringToStringVar(&o.selector, "selector", nil, "label key=value that a member must have to be given jobs; repeatable; in place of those that were said before")
	f.BoolVar(&o.noSelector, "no-selector", false, "any member may be given jobs")
	f.IntVar(&o.moveCap, "move-cap", 0, "percent of the slots that may be on their way at once (default 10)")
	f.DurationVar(&o.gather, "gather", 0, "how long members that have come are gathered before jobs move to them; below 0: they are not (default 3s)")
	f.DurationVar(&o.restartGrace, "restart-grace", 0, "how long the jobs of a member that restarts are kept for its name (default 30s; below 0 they are not)")
	f.DurationVar(&o.obey, "obey", 0, "a member that has not carried a plan out for so long is condemned (default 1m)")
}

// over is a group with those options changed that were given.
func (o *groupOptions) over(g httpapi.Group, given func(flag string) bool) httpapi.Group {
	g.Slots = o.slots // 0: as many as it has
	for flag, change := range map[string]func(){
		"strategy":      func() { g.Strategy = o.strategy },
		"selector":      func() { g.Selector = o.selector },
		"no-selector":   func() { g.Selector = nil },
		"move-cap":      func() { g.MoveCap = o.moveCap },
		"gather":        func() { g.GatherMS = httpapi.Milliseconds(o.gather) },
		"restart-grace": func() { g.RestartGraceMS = httpapi.Milliseconds(o.restartGrace) },
		"obey":          func() { g.ObeyMS = httpapi.Milliseconds(o.obey) },
	} {
		if given(flag) {
			change()
		}
	}
	return g
}
