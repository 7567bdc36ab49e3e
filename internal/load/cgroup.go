package load

import (
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// groups are the control groups that this process is in: its own and all around it, as far
// as they are to be seen, by their directories.
// https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/
type groups struct {
	unified []string   // version 2
	cpu     []cpuGroup // version 1
	bytes   []string   // version 1, of the memory controller
}

// cpuGroup is a group of version 1, which may keep limits and accounts in two places.
type cpuGroup struct{ limits, accounts string }

// findGroups looks for them below the root of a file system. What it does not find does not
// limit anything.
func findGroups(root string) (g groups) {
	paths := ownPaths(root)
	mounts := mountPoints(root, paths)
	g.unified = mounts[""].chain(paths[""])
	g.bytes = mounts["memory"].chain(paths["memory"])
	accounts := mounts["cpuacct"].chain(paths["cpu"])
	for i, limits := range mounts["cpu"].chain(paths["cpu"]) {
		if i < len(accounts) {
			g.cpu = append(g.cpu, cpuGroup{limits, accounts[i]})
		}
	}
	return g
}

// ownPaths are the paths of this process's own groups, by controller; "" is version 2.
func ownPaths(root string) map[string]string {
	paths := map[string]string{}
	for line := range lines(filepath.Join(root, "proc/self/cgroup")) {
		if fields := strings.SplitN(line, ":", 3); len(fields) == 3 {
			for controller := range strings.SplitSeq(fields[1], ",") {
				paths[controller] = fields[2]
			}
		}
	}
	return paths
}

// hierarchy is where groups are to be seen: the one at root, and all in it, at point.
type hierarchy struct{ root, point string }

// shows says whether the group at path is to be seen there, and where.
func (h hierarchy) shows(path string) (inside string, ok bool) {
	inside, err := filepath.Rel(h.root, path)
	return inside, err == nil && filepath.IsLocal(inside)
}

// mountPoints are the hierarchies, by controller; "" is version 2. Of several it takes the
// first that shows the process's own group.
func mountPoints(root string, paths map[string]string) map[string]hierarchy {
	mounts := map[string]hierarchy{}
	add := func(controller string, h hierarchy) {
		known, seen := mounts[controller]
		_, knownShows := known.shows(paths[controller])
		if _, shows := h.shows(paths[controller]); !seen || shows && !knownShows {
			mounts[controller] = h
		}
	}
	for line := range lines(filepath.Join(root, "proc/self/mountinfo")) {
		where, what, _ := strings.Cut(line, " - ")
		place, kind := strings.Fields(where), strings.Fields(what)
		if len(place) < 5 || len(kind) < 3 {
			continue
		}
		h := hierarchy{root: unescape.Replace(place[3]), point: filepath.Join(root, unescape.Replace(place[4]))}
		switch kind[0] {
		case "cgroup2":
			add("", h)
		case "cgroup":
			for controller := range strings.SplitSeq(kind[2], ",") {
				add(controller, h)
			}
		}
	}
	return mounts
}

// unescape undoes what the kernel does to odd characters in mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// chain is the directory of the group at path, and those of all around it that are to be
// seen. A container may see its own group at the mount point, whatever its path is outside.
func (h hierarchy) chain(path string) (dirs []string) {
	if h.point == "" || path == "" {
		return nil
	}
	inside, shows := h.shows(path)
	if !shows {
		inside = "."
	}
	for ; inside != "."; inside = filepath.Dir(inside) {
		dirs = append(dirs, filepath.Join(h.point, inside))
	}
	return append(dirs, h.point)
}

// cpuUse is what a limited group has used so far, in seconds, and may use in each.
type cpuUse struct{ seconds, cores float64 }

// cpuUse reads the groups that have a quota, on a machine of so many CPUs.
func (g groups) cpuUse(cpus int) map[string]cpuUse {
	uses := map[string]cpuUse{}
	add := func(dir string, quota, period uint64, used float64) {
		if quota > 0 && period > 0 {
			uses[dir] = cpuUse{seconds: used, cores: min(float64(quota)/float64(period), float64(cpus))}
		}
	}
	for _, dir := range g.unified {
		quota, period, _ := strings.Cut(content(dir, "cpu.max"), " ") // "50000 100000", or "max 100000"
		if microseconds, ok := entry(dir, "cpu.stat", "usage_usec"); ok {
			add(dir, number(quota), number(period), float64(microseconds)/1e6)
		}
	}
	for _, dir := range g.cpu {
		quota, period := content(dir.limits, "cpu.cfs_quota_us"), content(dir.limits, "cpu.cfs_period_us") // quota -1: none
		if nanoseconds := content(dir.accounts, "cpuacct.usage"); nanoseconds != "" {
			add(dir.limits, number(quota), number(period), float64(number(nanoseconds))/1e9)
		}
	}
	return uses
}

// memory is the share that is in use in that group which is nearest to its limit, and
// whether any has one: less than the machine's total, as version 1 writes "none" as a number
// beyond all.
func (g groups) memory(total uint64) (used float64, limited bool) {
	add := func(dir, limit, current, cache string) {
		most := number(content(dir, limit)) // 0: "max", or no such file
		if most == 0 || most >= total && total > 0 {
			return
		}
		inactive, _ := entry(dir, "memory.stat", cache)
		now := number(content(dir, current))
		used, limited = max(used, share(float64(now)-float64(inactive), float64(most))), true
	}
	for _, dir := range g.unified {
		add(dir, "memory.max", "memory.current", "inactive_file")
	}
	for _, dir := range g.bytes {
		add(dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
	}
	return used, limited
}

// content is what stands in a file of a group; empty: there is none.
func content(dir, file string) string {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// entry is the number behind a key in a file of a group.
func entry(dir, file, key string) (n uint64, ok bool) {
	for line := range lines(filepath.Join(dir, file)) {
		if name, value, _ := strings.Cut(line, " "); name == key {
			return number(value), true
		}
	}
	return 0, false
}

// number is 0 for what is none: "max", "-1" or nothing.
func number(s string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// lines are the lines of a file; one that is empty: there is no such file.
func lines(path string) iter.Seq[string] {
	return strings.SplitSeq(content(filepath.Split(path)), "\n")
}
