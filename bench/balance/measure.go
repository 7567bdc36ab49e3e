package main

import (
	"fmt"
	"math"
	"slices"
)

// figures are what was measured of one contender with so many jobs and servers.
type figures struct {
	uneven      float64 // the most jobs of a server over the mean: the worst of all states
	join, leave float64 // jobs that moved over those that had to
	needless    float64 // the worst part of all jobs that moved between servers that stayed
}

const changes = 3 // servers that come, and as many that go, one after the other

func numbered(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprint(prefix, i))
	}
	return names
}

// measure lets servers come and go.
func measure(c contender, jobs, servers int) (f figures) {
	names := numbered("app-", servers)
	s := c.begin(numbered("job-", jobs), slices.Clone(names))
	before := owners(s, jobs)
	f.uneven = uneven(before, names)
	for i := range changes {
		comes := fmt.Sprint("new-", i)
		names = append(names, comes)
		s.change(slices.Clone(names))
		after := owners(s, jobs)
		f.join += moved(before, after) / (float64(jobs) / float64(len(names))) / changes
		f.look(before, after, names, comes)
		before = after

		goes := names[len(names)/2]
		names = without(names, len(names)/2)
		s.change(slices.Clone(names))
		after = owners(s, jobs)
		f.leave += moved(before, after) / count(before, goes) / changes
		f.look(before, after, names, goes)
		before = after
	}
	return f
}

// without removes a server, and the last takes its place: jump hashing wants it so.
func without(servers []string, i int) []string {
	fewer := slices.Clone(servers[:len(servers)-1])
	if i < len(fewer) {
		fewer[i] = servers[len(servers)-1]
	}
	return fewer
}

func owners(s spread, jobs int) []string {
	all := make([]string, jobs)
	s.owners(all)
	return all
}

func (f *figures) look(before, after, servers []string, changed string) {
	f.uneven = max(f.uneven, uneven(after, servers))
	var needless float64
	for i := range before {
		if before[i] != after[i] && before[i] != changed && after[i] != changed {
			needless++
		}
	}
	f.needless = max(f.needless, needless/float64(len(before)))
}

// uneven is the most jobs of a server over the mean.
func uneven(owners, servers []string) float64 {
	counts := map[string]int{}
	most := 0
	for _, o := range owners {
		counts[o]++
		most = max(most, counts[o])
	}
	return float64(most) * float64(len(servers)) / float64(len(owners))
}

// possible is the best that whole jobs allow, in the worst of the states that measure looks at.
func possible(jobs, servers int) (worst float64) {
	for _, n := range []float64{float64(servers), float64(servers + 1)} {
		mean := float64(jobs) / n
		worst = max(worst, math.Ceil(mean)/mean)
	}
	return worst
}

func moved(before, after []string) (n float64) {
	for i := range before {
		if before[i] != after[i] && after[i] != "" {
			n++
		}
	}
	return n
}

func count(owners []string, server string) (n float64) {
	for _, o := range owners {
		if o == server {
			n++
		}
	}
	return n
}

// rolling restarts all servers, one after the other, under their names, and returns how often
// a job moved, over the number of jobs.
func rolling(c contender, jobs, servers int) (n float64) {
	names := numbered("app-", servers)
	s := c.begin(numbered("job-", jobs), slices.Clone(names))
	at := owners(s, jobs)
	look := func() {
		now := owners(s, jobs)
		n += moved(at, now)
		for i := range at {
			if now[i] != "" {
				at[i] = now[i]
			}
		}
	}
	for i := range names {
		s.restart(without(names, i))
		look()
		s.change(slices.Clone(names))
		look()
	}
	return n / float64(jobs)
}
