package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/coordd/coordd/assign"
)

// speed prints what a plan and the look-up of all jobs take, on this machine.
func speed(out *bufio.Writer) {
	plans(out)
	lookups(out)
}

func plans(out *bufio.Writer) {
	fmt.Fprintf(out, `## Speed

On %s, one core of it, with %s; another machine gives other numbers. The fastest of the runs of three seconds.

A plan, in milliseconds, of a million jobs on so many slots and servers: after a server has gone, after one has come, when nothing has changed, and the first
one, in which no slot has an owner.

| slots × servers | one gone | one come | nothing | the first |
|---|---:|---:|---:|---:|
`, processor(), runtime.Version())
	for _, size := range [][2]int{{4096, 100}, {65536, 1000}} {
		for _, name := range assign.Strategies() {
			fmt.Fprintf(out, "| %d × %d, %s |", size[0], size[1], name)
			for _, v := range views(name, size[0], size[1]) {
				p := planner(name)
				fmt.Fprintf(out, " %.2f |", best(func() { p.Plan(v) }))
			}
			fmt.Fprintln(out)
		}
	}
}

func lookups(out *bufio.Writer) {
	const jobs = 1_000_000
	fmt.Fprint(out, `
The servers of all of a million jobs on 100 servers, in milliseconds. Counted is, for each job's name (7 to 10 bytes, in memory), hashing it and looking up its slot's owner,
or what the library does in place of that; not counted is making the plan or the table, and the memory for the answer.

| | ms |
|---|---:|
`)
	names := make([]string, jobs)
	for _, c := range slices.Concat([]contender{strategy(assign.DefaultStrategy)}, libraries()) {
		s := c.begin(numbered("job-", jobs), numbered("app-", 100))
		name := c.name
		if p, ours := s.(*planned); ours {
			name = "any strategy of ours"
			indexes := make([]int, jobs)
			fmt.Fprintf(out, "| %s, as an index | %.0f |\n", name, best(func() { p.indexes(indexes) }))
		}
		fmt.Fprintf(out, "| %s, as a name | %.0f |\n", name, best(func() { s.owners(names) }))
	}
}

// indexes looks every job's owner up, as an index of a member.
func (p *planned) indexes(to []int) {
	for i, job := range p.jobs {
		to[i] = p.view.Owners[assign.SlotOf(job, slots)]
	}
}

func planner(strategy string) assign.Planner {
	return assign.Sticky(must(assign.PlacerByName(strategy)))
}

// views are of a group after one has gone, after one has come, after nothing, and at first.
func views(strategy string, slots, servers int) []assign.View {
	v := assign.View{Group: "bench", Owners: slices.Repeat([]int{-1}, slots), Load: make([]float64, slots)}
	for i := range servers {
		v.Members = append(v.Members, assign.Member{ID: fmt.Sprintf("%04d", i), Name: fmt.Sprint("app-", i), Weight: 1, CPU: 0.5, Eligible: true})
	}
	for _, job := range numbered("job-", 1_000_000) {
		v.Load[assign.SlotOf(job, slots)]++
	}
	first := v
	v.Owners = planner(strategy).Plan(v)
	gone, come := v, v
	gone.Members = slices.Clone(v.Members)
	gone.Members[servers/2].Eligible = false
	come.Members = append(slices.Clone(v.Members), assign.Member{ID: "9999", Name: "new", Weight: 1, CPU: 0.5, Eligible: true})
	return []assign.View{gone, come, v, first}
}

// best is how long the fastest of the runs of three seconds takes, in milliseconds: what others do
// on the machine meanwhile is not counted.
func best(f func()) float64 {
	shortest := time.Hour
	for begin := time.Now(); time.Since(begin) < 3*time.Second; {
		run := time.Now()
		f()
		shortest = min(shortest, time.Since(run))
	}
	return float64(shortest) / float64(time.Millisecond)
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
