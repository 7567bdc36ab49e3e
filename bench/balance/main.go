// Command balance prints docs/balance.md: how evenly our strategies and the common hashing
// libraries spread jobs over servers, what they move when servers come and go, and how long
// that takes. See the README of this module.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

var (
	jobCounts    = []int{1_000, 100_000, 1_000_000}
	serverCounts = []int{3, 10, 100}
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprint(out, intro)
	balance(out)
	restarts(out)
	speed(out)
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "balance:", err)
		os.Exit(1)
	}
}

const intro = `<!-- Written by: (cd bench && go run ./balance > ../docs/balance.md). Do not edit. -->
# Balance and movement, measured

How evenly jobs are spread over servers, and how many move when servers come and go: the strategies of package assign, above, and the hashing
libraries that Go programs commonly use, below. What the strategies are is in [assignment.md](assignment.md).

- Jobs are named job-0, job-1, ...; each counts 1. A group has 4096 slots and its servers before there is a job; then all jobs come, and plans are made and
  carried out until one changes nothing.
- Three times a server comes, and one from the middle goes. All other numbers are of these six changes.
- The libraries compute each job's server from its name and the servers' names alone, with their default numbers. go-jump numbers its servers; when one goes,
  the last takes its number. lafikl with bounded loads is filled anew for each set of servers, in the order of the jobs, as it never subtracts
  the load of a server that was removed.
- Where there are 10 jobs a server, one more or less is 10 %. A slot with two of them cannot be divided.

`

// table prints one number for each contender, number of servers and number of jobs.
func table(out *bufio.Writer, head string, rows []row) {
	fmt.Fprintf(out, "| %s |", head)
	for _, servers := range serverCounts {
		for _, jobs := range jobCounts {
			fmt.Fprintf(out, " %d × %s |", servers, short(jobs))
		}
	}
	fmt.Fprintf(out, "\n|---|%s\n", strings.Repeat("---:|", len(serverCounts)*len(jobCounts)))
	for _, r := range rows {
		fmt.Fprintf(out, "| %s | %s |\n", r.name, strings.Join(r.cells, " | "))
	}
	fmt.Fprintln(out)
}

type row struct {
	name  string
	cells []string
}

func short(n int) string {
	if n >= 1_000_000 {
		return fmt.Sprintf("%dM", n/1_000_000)
	}
	return fmt.Sprintf("%dk", n/1000)
}

func balance(out *bufio.Writer) {
	least := row{name: "*the least that whole jobs allow*"}
	var even, join, leave, needless []row
	for _, servers := range serverCounts {
		for _, jobs := range jobCounts {
			least.cells = append(least.cells, fmt.Sprintf("%.3f", possible(jobs, servers)))
		}
	}
	for _, c := range contenders() {
		fmt.Fprintln(os.Stderr, c.name)
		e, j, l, n := row{name: c.name}, row{name: c.name}, row{name: c.name}, row{name: c.name}
		for _, servers := range serverCounts {
			for _, jobs := range jobCounts {
				f := measure(c, jobs, servers)
				e.cells = append(e.cells, fmt.Sprintf("%.3f", f.uneven))
				j.cells = append(j.cells, fmt.Sprintf("%.3f", f.join))
				l.cells = append(l.cells, fmt.Sprintf("%.3f", f.leave))
				n.cells = append(n.cells, fmt.Sprintf("%.2f", 100*f.needless))
			}
		}
		even, join, leave, needless = append(even, e), append(join, j), append(leave, l), append(needless, n)
	}
	fmt.Fprint(out, "## Balance\n\nThe most jobs of a server over the mean, in the worst of seven states. 1.000 is even; servers × jobs.\n\n")
	table(out, "most / mean", append([]row{least}, even...))
	fmt.Fprint(out, "## Movement when a server comes\n\nJobs that moved over those that had to: the newcomer's share. Less than 1 means that the newcomer got less than its share.\n\n")
	table(out, "moved / needed", join)
	fmt.Fprint(out, "## Movement when a server goes\n\nJobs that moved over those that had to: all that it had.\n\n")
	table(out, "moved / needed", leave)
	fmt.Fprint(out, "## Needless movement\n\nJobs that moved between two servers that both were there before and after, in % of all jobs: the worst of six changes.\n\n")
	table(out, "% of all jobs", needless)
}

func restarts(out *bufio.Writer) {
	const jobs, servers = 100_000, 10
	fmt.Fprintf(out, `## A rolling restart

Each of %d servers goes and comes back under its name, one after the other: how often each of %d jobs moved, on average. With a strategy of ours its slots wait for it.

| | moves a job |
|---|---:|
`, servers, jobs)
	for _, c := range contenders() {
		fmt.Fprintf(out, "| %s | %.2f |\n", c.name, rolling(c, jobs, servers))
	}
	fmt.Fprintln(out)
}
