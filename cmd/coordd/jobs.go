package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/render"
)

func jobsCommand(from *sourceFlags) *cobra.Command {
	jobs := &cobra.Command{
		Use:   "jobs",
		Short: "Jobs, each of which one member looks after: add, list, show, remove, pause, resume",
		Args:  knownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	jobs.AddCommand(jobsAddCommand(from), jobsListCommand(from), jobsShowCommand(from),
		jobsAlterCommand(from, "remove", "Remove jobs", "removed", source.RemoveJob),
		jobsAlterCommand(from, "pause", "Have nobody run jobs", "paused", source.PauseJob),
		jobsAlterCommand(from, "resume", "Have paused jobs run again", "resumed", source.ResumeJob))
	return jobs
}

// So many jobs, of so many bytes of JSON together, are added by one request, and in one transaction.
// One job that is larger is sent alone.
const (
	jobsAtOnce  = 500
	bytesAtOnce = 32 << 10
)

func jobsAddCommand(from *sourceFlags) *cobra.Command {
	var file, payload string
	var labels map[string]string
	var weight int
	var paused bool
	add := &cobra.Command{
		Use:   "add GROUP [KEY...]",
		Short: "Add jobs to a group, which is made if there is none",
		Long: `Add jobs to a group, which is made if there is none. A job that is there already stays as it is, so
whatever has interrupted this command, run it again.`,
		Example: `  coordd jobs add monitors orders payments
  coordd jobs add monitors --from keys.txt      one key a line; - reads standard input`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) == 1 && file == "" {
				return usageError{errors.New("say to which group, and which jobs: coordd jobs add GROUP KEY..., or --from FILE")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			keys := func(yield func(string, error) bool) {
				for _, key := range args[1:] {
					if !yield(key, nil) {
						return
					}
				}
				if file != "" {
					linesOf(cmd.InOrStdin(), file, yield)
				}
			}
			return from.open(cmd.Context(), func(s source) error {
				a := adder{cmd: cmd, s: s, group: args[0], began: time.Now()}
				for key, err := range keys {
					if err != nil {
						return err
					}
					job := httpapi.JobSpec{Key: key, Payload: payload, Labels: labels, Weight: weight, Paused: paused}
					if err := a.add(cmd.Context(), job); err != nil {
						return err
					}
				}
				if err := a.send(cmd.Context()); err != nil {
					return err
				}
				cmd.PrintErrf("%d jobs added to %s, %d were there and stay as they are\n", a.added, a.group, a.read-a.added)
				return nil
			})
		},
	}
	f := add.Flags()
	f.StringVar(&file, "from", "", "a file with one key a line; - is standard input")
	f.StringVar(&payload, "payload", "", "for whoever runs the job")
	f.StringToStringVar(&labels, "label", nil, "label key=value; repeatable")
	f.IntVar(&weight, "weight", 1, "the job's share of the load")
	f.BoolVar(&paused, "paused", false, "nobody is to run it yet")
	return add
}

// linesOf yields the lines of a file that are not empty.
func linesOf(stdin io.Reader, file string, yield func(string, error) bool) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			yield("", usageError{fmt.Errorf("the file of keys cannot be read: %w", err)})
			return
		}
		defer f.Close()
		in = f
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if key := strings.TrimSuffix(lines.Text(), "\r"); key != "" && !yield(key, nil) {
			return
		}
	}
	if err := lines.Err(); err != nil {
		yield("", usageError{fmt.Errorf("the file of keys cannot be read: %w", err)})
	}
}

// adder adds jobs, many at a time, and tells how far it is.
type adder struct {
	cmd         *cobra.Command
	s           source
	group       string
	pending     []httpapi.JobSpec
	size        int // of those, in bytes of JSON
	read, added int
	began, told time.Time
}

// add has a job sent with others.
func (a *adder) add(ctx context.Context, job httpapi.JobSpec) error {
	b, err := json.Marshal(job)
	if err != nil {
		return err
	}
	if len(a.pending) == jobsAtOnce || a.size+len(b) > bytesAtOnce {
		if err := a.send(ctx); err != nil {
			return err
		}
	}
	a.pending, a.size = append(a.pending, job), a.size+len(b)
	return nil
}

func (a *adder) send(ctx context.Context) error {
	if len(a.pending) == 0 {
		return nil
	}
	added, err := a.s.AddJobs(ctx, a.group, a.pending)
	if errors.Is(err, assign.ErrNoGroup) {
		if _, err = a.s.Define(ctx, httpapi.Group{Name: a.group}); err == nil {
			a.cmd.PrintErrf("group %s made, with %d slots\n", a.group, assign.DefaultSlots)
			added, err = a.s.AddJobs(ctx, a.group, a.pending)
		}
	}
	if err != nil {
		if a.read > 0 {
			a.cmd.PrintErrf("%d jobs of %s are there; run the same again for the others\n", a.read, a.group)
		}
		return err
	}
	a.read, a.added, a.pending, a.size = a.read+len(a.pending), a.added+added, a.pending[:0], 0
	if time.Since(a.told) > time.Second && time.Since(a.began) > time.Second {
		a.told = time.Now()
		a.cmd.PrintErrf("%d jobs, %.0f a second\n", a.read, float64(a.read)/time.Since(a.began).Seconds())
	}
	return nil
}

// oneGroup is for commands about one group.
func oneGroup(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("say which group: %s GROUP", cmd.CommandPath())}
	}
	return nil
}

var jobColumns = []render.Column[httpapi.Job]{
	{Title: "KEY", Cell: func(j httpapi.Job) string { return j.Key }},
	{Title: "OWNER", Cell: func(j httpapi.Job) string {
		switch {
		case j.Paused:
			return "- (paused)"
		case j.Owner == nil:
			return "-"
		}
		return j.Owner.Name
	}},
	{Title: "SLOT", Cell: func(j httpapi.Job) string { return fmt.Sprint(j.Slot) }},
	{Title: "EPOCH", Wide: true, Cell: func(j httpapi.Job) string {
		if j.Owner == nil {
			return "-"
		}
		return fmt.Sprint(j.Owner.Epoch)
	}},
	{Title: "ADDRESS", Wide: true, Cell: func(j httpapi.Job) string {
		if j.Owner == nil {
			return "-"
		}
		return orDash(j.Owner.Address)
	}},
	{Title: "WEIGHT", Wide: true, Cell: func(j httpapi.Job) string { return fmt.Sprint(j.Weight) }},
	{Title: "LABELS", Wide: true, Cell: func(j httpapi.Job) string { return orDash(labels(j.Labels)) }},
	{Title: "PAYLOAD", Wide: true, Cell: func(j httpapi.Job) string { return orDash(j.Payload) }},
}

func jobsListCommand(from *sourceFlags) *cobra.Command {
	var output, after string
	var limit int
	list := &cobra.Command{
		Use:   "list GROUP",
		Short: "List jobs, and who looks after them",
		Args:  oneGroup,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			if limit < 1 {
				return usageError{errors.New("--limit must be at least 1")}
			}
			return from.open(cmd.Context(), func(s source) error {
				jobs, next, err := listJobs(cmd.Context(), s, args[0], after, limit)
				if err != nil {
					return err
				}
				if err := render.Write(cmd.OutOrStdout(), output, jobs, jobColumns); err != nil {
					return err
				}
				if next != "" {
					cmd.PrintErrf("there are more: --after %q\n", next)
				}
				return nil
			})
		},
	}
	outputFlag(list, &output)
	list.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	list.Flags().StringVar(&after, "after", "", "those after this key")
	return list
}

// listJobs reads pages until it has so many jobs.
func listJobs(ctx context.Context, s source, group, after string, limit int) (jobs []httpapi.Job, next string, err error) {
	jobs = []httpapi.Job{}
	for next = after; len(jobs) < limit; {
		page, err := s.Jobs(ctx, group, next, min(1000, limit-len(jobs)))
		if err != nil {
			return nil, "", err
		}
		jobs, next = append(jobs, page.Jobs...), page.Next
		if next == "" {
			break
		}
	}
	return jobs, next, nil
}

func jobsShowCommand(from *sourceFlags) *cobra.Command {
	var output string
	show := &cobra.Command{
		Use:   "show GROUP KEY",
		Short: "Show a job, and who looks after it",
		Args:  groupAndKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return from.open(cmd.Context(), func(s source) error {
				job, err := s.Job(cmd.Context(), args[0], args[1])
				if err != nil {
					return err
				}
				return render.Write(cmd.OutOrStdout(), output, []httpapi.Job{job}, jobColumns)
			})
		},
	}
	outputFlag(show, &output)
	return show
}

func groupAndKey(cmd *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usageError{fmt.Errorf("say which job of which group: %s GROUP KEY", cmd.CommandPath())}
	}
	return nil
}

func jobsAlterCommand(from *sourceFlags, name, short, done string, alter func(source, context.Context, string, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " GROUP KEY...",
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError{fmt.Errorf("say of which group, and which jobs: %s GROUP KEY", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return from.open(cmd.Context(), func(s source) error {
				var failed error
				for _, key := range args[1:] {
					if err := alter(s, cmd.Context(), args[0], key); err != nil {
						failed = errors.Join(failed, err)
						continue
					}
					cmd.PrintErrf("%s is %s\n", key, done)
				}
				return failed
			})
		},
	}
}
