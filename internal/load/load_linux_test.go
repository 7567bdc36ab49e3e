package load

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// tree writes files into a file system of a test's own.
func tree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for path, content := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// machine is a machine of 8 GiB with nothing limited: 4 GiB are available.
var machine = map[string]string{
	"proc/stat":    "cpu  1000 0 500 8000 500 0 0 0 0 0\ncpu0 1000 0 500 8000 500 0 0 0 0 0",
	"proc/meminfo": "MemTotal: 8388608 kB\nMemFree: 1048576 kB\nMemAvailable: 4194304 kB",
	"proc/loadavg": "1.25 0.50 0.25 1/100 4242",
}

func with(more ...map[string]string) map[string]string {
	files := maps.Clone(machine)
	for _, m := range more {
		maps.Copy(files, m)
	}
	return files
}

// What a process sees of its groups in the places where it may be.
var (
	container = map[string]string{ // version 2: the mount point is its own group
		"proc/self/cgroup":    "0::/",
		"proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate",
	}
	service = map[string]string{ // version 2, under systemd
		"proc/self/cgroup":    "0::/apps.slice/my app.service",
		"proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate",
	}
	old = map[string]string{ // version 1, in a container that sees its path outside
		"proc/self/cgroup": "5:cpu,cpuacct:/docker/4242\n4:memory:/docker/4242\n1:name=systemd:/docker/4242\n0::/",
		"proc/self/mountinfo": `32 31 0:29 /docker/4242 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 /docker/4242 /sys/fs/cgroup/memory\040v1 ro - cgroup cgroup rw,memory
34 31 0:31 / /host/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`,
	}
	apart = map[string]string{ // version 1, with limits and accounts in two places, and the machine's groups in sight
		"proc/self/cgroup": "5:cpuacct:/\n4:cpu:/jobs/one\n3:memory:/jobs/one",
		"proc/self/mountinfo": `32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu
33 31 0:30 / /cg/cpuacct rw - cgroup cgroup rw,cpuacct
34 31 0:31 / /cg/memory rw - cgroup cgroup rw,memory`,
	}
)

func TestCPUIsTheShareOfTheQuota(t *testing.T) {
	for name, test := range map[string]struct {
		before, after map[string]string // ten seconds later
		want          float64
	}{
		"a container that uses up half a core": {
			before: with(container, map[string]string{"sys/fs/cgroup/cpu.max": "50000 100000", "sys/fs/cgroup/cpu.stat": "usage_usec 1000000\nuser_usec 7"}),
			after:  map[string]string{"sys/fs/cgroup/cpu.stat": "usage_usec 6000000\nuser_usec 7"},
			want:   1,
		},
		"a container that uses a quarter of half a core, on a busy machine": {
			before: with(container, map[string]string{"sys/fs/cgroup/cpu.max": "50000 100000", "sys/fs/cgroup/cpu.stat": "usage_usec 1000000"}),
			after:  map[string]string{"sys/fs/cgroup/cpu.stat": "usage_usec 2250000", "proc/stat": "cpu  2000 0 500 8000 500 0 0 0 0 0"},
			want:   0.25,
		},
		"more than the quota": {
			before: with(container, map[string]string{"sys/fs/cgroup/cpu.max": "50000 100000", "sys/fs/cgroup/cpu.stat": "usage_usec 1000000"}),
			after:  map[string]string{"sys/fs/cgroup/cpu.stat": "usage_usec 8000000"},
			want:   1,
		},
		"accounts that began anew": {
			before: with(container, map[string]string{"sys/fs/cgroup/cpu.max": "50000 100000", "sys/fs/cgroup/cpu.stat": "usage_usec 9000000"}),
			after:  map[string]string{"sys/fs/cgroup/cpu.stat": "usage_usec 1000000"},
			want:   0,
		},
		"a quota that is raised meanwhile": {
			before: with(container, map[string]string{"sys/fs/cgroup/cpu.max": "10000 100000", "sys/fs/cgroup/cpu.stat": "usage_usec 0"}),
			after:  map[string]string{"sys/fs/cgroup/cpu.max": "50000 100000", "sys/fs/cgroup/cpu.stat": "usage_usec 1000000"},
			want:   0.2,
		},
		"a slice that is nearer to its quota than the service in it": {
			before: with(service, map[string]string{
				"sys/fs/cgroup/cpu.stat":                           "usage_usec 0",
				"sys/fs/cgroup/apps.slice/cpu.max":                 "100000 100000",
				"sys/fs/cgroup/apps.slice/cpu.stat":                "usage_usec 0",
				"sys/fs/cgroup/apps.slice/my app.service/cpu.max":  "50000 100000",
				"sys/fs/cgroup/apps.slice/my app.service/cpu.stat": "usage_usec 0",
			}),
			after: map[string]string{
				"sys/fs/cgroup/apps.slice/cpu.stat":                "usage_usec 8000000",
				"sys/fs/cgroup/apps.slice/my app.service/cpu.stat": "usage_usec 1000000",
			},
			want: 0.8,
		},
		"version 1": {
			before: with(old, map[string]string{
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":  "50000",
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
				"sys/fs/cgroup/cpu,cpuacct/cpuacct.usage":     "1000000000",
			}),
			after: map[string]string{"sys/fs/cgroup/cpu,cpuacct/cpuacct.usage": "4000000000"},
			want:  0.6,
		},
		"version 1 in two places": {
			before: with(apart, map[string]string{
				"cg/cpu/cpu.cfs_quota_us":           "-1",
				"cg/cpu/cpu.cfs_period_us":          "100000",
				"cg/cpuacct/cpuacct.usage":          "77000000000",
				"cg/cpu/jobs/one/cpu.cfs_quota_us":  "50000",
				"cg/cpu/jobs/one/cpu.cfs_period_us": "100000",
				"cg/cpuacct/jobs/one/cpuacct.usage": "0",
				"cg/cpu/jobs/cpu.cfs_quota_us":      "20000",
				"cg/cpu/jobs/cpu.cfs_period_us":     "100000",
			}),
			after: map[string]string{"cg/cpuacct/jobs/one/cpuacct.usage": "1000000000"},
			want:  0.2,
		},
		"a machine with groups and no quota": {
			before: with(service, map[string]string{"sys/fs/cgroup/apps.slice/cpu.max": "max 100000", "sys/fs/cgroup/apps.slice/cpu.stat": "usage_usec 0"}),
			after:  map[string]string{"proc/stat": "cpu  1300 0 600 8500 600 0 0 0 0 0"}, // 400 of 1000, and 100 waiting for a disk
			want:   0.4,
		},
		"a machine without groups": {
			before: with(),
			after:  map[string]string{"proc/stat": "cpu  1300 0 600 8500 600 0 0 0 0 0"},
			want:   0.4,
		},
		"a machine that did nothing": {before: with(), want: 0},
		"nothing to be read":         {before: map[string]string{}, want: 0},
		"nothing to be read at first": {
			before: map[string]string{}, after: with(), want: 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				tree(t, root, test.before)
				s := newSampler(root)
				if got := s.Load().CPU; got != 0 {
					t.Fatalf("at once: got %v, want 0", got)
				}
				time.Sleep(10 * time.Second)
				tree(t, root, test.after)
				for range 2 { // the second one comes too early to measure anything
					if got := s.Load().CPU; math.Abs(got-test.want) > 1e-9 {
						t.Fatalf("got %v, want %v", got, test.want)
					}
				}
			})
		})
	}
}

func TestMemoryIsTheShareOfTheLimit(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  float64
	}{
		"a container": {with(container, map[string]string{
			"sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "900", "sys/fs/cgroup/memory.stat": "anon 500\ninactive_file 200\nactive_file 100",
		}), 0.7},
		"a container whose files are all of it": {with(container, map[string]string{
			"sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "900", "sys/fs/cgroup/memory.stat": "inactive_file 901",
		}), 0},
		"more than the limit": {with(container, map[string]string{
			"sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "1001",
		}), 1},
		"a slice that is nearer to its limit than the service in it": {with(service, map[string]string{
			"sys/fs/cgroup/apps.slice/memory.max": "2000", "sys/fs/cgroup/apps.slice/memory.current": "1800",
			"sys/fs/cgroup/apps.slice/my app.service/memory.max": "1000", "sys/fs/cgroup/apps.slice/my app.service/memory.current": "100",
		}), 0.9},
		"version 1": {with(old, map[string]string{
			"sys/fs/cgroup/memory v1/memory.limit_in_bytes": "1000", "sys/fs/cgroup/memory v1/memory.usage_in_bytes": "500",
			"sys/fs/cgroup/memory v1/memory.stat":             "inactive_file 1\ntotal_inactive_file 250",
			"host/sys/fs/cgroup/memory/memory.limit_in_bytes": "1000", "host/sys/fs/cgroup/memory/memory.usage_in_bytes": "999", // another way to see them
		}), 0.25},
		"version 1 without a limit": {with(old, map[string]string{
			"sys/fs/cgroup/memory v1/memory.limit_in_bytes": "9223372036854771712", "sys/fs/cgroup/memory v1/memory.usage_in_bytes": "1",
		}), 0.5},
		"version 2 without a limit": {with(container, map[string]string{
			"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "1",
		}), 0.5},
		"no groups":          {with(), 0.5},
		"nothing to be read": {map[string]string{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			tree(t, root, test.files)
			if got := newSampler(root).Load().Memory; math.Abs(got-test.want) > 1e-9 {
				t.Fatalf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestAverageIsTheMachines(t *testing.T) {
	root := t.TempDir()
	tree(t, root, machine)
	if got := newSampler(root).Load().Average; got != 1.25 {
		t.Fatalf("got %v, want 1.25", got)
	}
}
