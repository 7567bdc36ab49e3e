// Package load measures how much is used of what this process may use, for the Load of a
// [heartbeat.Config].
//
// Where a control group limits the process, as a container's does, that is what the group
// uses of its limit; where several do, one inside another, the one that is nearest to its
// limit counts. Elsewhere it is what everybody uses of the machine.
//
// Control groups are Linux's, version 1 and 2. It looks at quotas of CPU and at limits of
// memory, and not at cpusets or swap.
package load

import (
	"context"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/common"
	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/coordd/coordd/heartbeat"
)

// Sampler measures from one call of Load to the next, so each member has one of its own. It
// is safe for concurrent use.
type Sampler struct {
	proc   string // where /proc is
	groups groups

	mu     sync.Mutex
	latest reading
	cpu    float64 // share from the reading before it to that one
}

// New begins to measure. The control groups are those that the process is in now; their
// limits may change.
func New() *Sampler { return newSampler("/") }

func newSampler(root string) *Sampler {
	s := &Sampler{proc: filepath.Join(root, "proc"), groups: findGroups(root)}
	s.latest = s.read()
	return s
}

// Load reads some small files and waits for nothing. What cannot be read is 0.
//
//   - CPU is the share that was used since the previous call, or since New: 0 to 1. Time
//     that a hypervisor gave to others counts as used. A call that comes less than 100 ms
//     after the previous one repeats it, as so short a time cannot be measured.
//   - Memory is the share that is in use now: 0 to 1, without what can be had back at once
//     (files that were cached and not used lately).
//   - Average is the machine's own, also in a container: of the tasks that ran, could have
//     run or waited for a disk, over the last minute. Windows has none.
func (s *Sampler) Load() heartbeat.Load {
	return heartbeat.Load{CPU: s.sample(), Memory: s.memory(), Average: s.average()}
}

// shortest is the shortest time over which CPU is measured; the machine counts it in steps
// of 10 ms.
const shortest = 100 * time.Millisecond

func (s *Sampler) sample() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.latest.at) < shortest {
		return s.cpu
	}
	now := s.read()
	s.latest, s.cpu = now, now.since(s.latest)
	return s.cpu
}

// reading is how much CPU was used up to a moment.
type reading struct {
	at          time.Time
	busy, total float64           // seconds of all CPUs of the machine
	groups      map[string]cpuUse // those that are limited, by directory
}

func (s *Sampler) read() reading {
	r := reading{at: time.Now(), groups: s.groups.cpuUse(runtime.NumCPU())}
	if all, err := cpu.TimesWithContext(s.machine(), false); err == nil && len(all) == 1 {
		t := all[0]
		r.busy = t.User + t.Nice + t.System + t.Irq + t.Softirq + t.Steal // guests are among the users
		r.total = r.busy + t.Idle + t.Iowait
	}
	return r
}

// since is the share that was used after an earlier reading.
func (r reading) since(earlier reading) float64 {
	elapsed := r.at.Sub(earlier.at).Seconds()
	nearest, limited := 0.0, false
	for dir, now := range r.groups {
		if before, known := earlier.groups[dir]; known {
			nearest = max(nearest, share(now.seconds-before.seconds, now.cores*elapsed))
			limited = true
		}
	}
	switch {
	case limited:
		return nearest
	case earlier.total == 0:
		return 0 // it could not be read
	}
	return share(r.busy-earlier.busy, r.total-earlier.total)
}

func (s *Sampler) memory() float64 {
	machine, err := mem.VirtualMemoryWithContext(s.machine())
	if err != nil {
		machine = new(mem.VirtualMemoryStat)
	}
	if used, limited := s.groups.memory(machine.Total); limited {
		return used
	}
	return share(machine.UsedPercent, 100)
}

func (s *Sampler) average() float64 {
	if runtime.GOOS == "windows" {
		return 0 // gopsutil would reckon one up in a goroutine that never ends
	}
	average, err := load.AvgWithContext(s.machine())
	if err != nil {
		return 0
	}
	return max(0, average.Load1)
}

// machine tells gopsutil where /proc is.
func (s *Sampler) machine() context.Context {
	return context.WithValue(context.Background(), common.EnvKey, common.EnvMap{common.HostProcEnvKey: s.proc})
}

// share is a part of a whole: 0 to 1, and 0 where there is none to speak of.
func share(part, whole float64) float64 {
	switch {
	case !(part > 0) || !(whole > 0): // NaN, too
		return 0
	case part >= whole:
		return 1
	}
	return part / whole
}
