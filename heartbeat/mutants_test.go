package heartbeat

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mutant is a deliberate bug: one place in one file, changed.
type mutant struct {
	name, file string
	old, new   string
}

// mutants are mistakes that somebody could make. A change that moves one of these places must
// move its mutant with it.
var mutants = []mutant{
	{"the right is counted from the reply", "beat.go",
		`s.sent, s.acked, s.validUntil, s.failing = sent, now, sent+right(s.cfg.TTL), false`,
		`s.sent, s.acked, s.validUntil, s.failing = sent, now, now+right(s.cfg.TTL), false`},
	{"one look is enough to declare death", "observer.go",
		`if received-s.since >= window(p.ttl) {`,
		`if received-s.since >= 0 {`},
	{"death is declared whatever seq is", "look.go",
		`where member_id = ? and seq = ? and state in`,
		`where member_id = ? and seq >= ? and state in`},
	{"a beat revives the dead", "beat.go",
		"load_json = ?\n\t\twhere member_id = ? and state in ('alive', 'draining')`",
		"load_json = ?, state = 'alive'\n\t\twhere member_id = ?`"},
	{"a dead row takes beats", "beat.go",
		"load_json = ?\n\t\twhere member_id = ? and state in ('alive', 'draining')`",
		"load_json = ?\n\t\twhere member_id = ?`"},
	{"the observation goes on after a gap", "observer.go",
		`s.seq != p.seq || idle > p.ttl/2 {`,
		`s.seq != p.seq || idle < 0 {`},
	{"only looks tell of an outage", "look.go",
		`stalled, failed = max(s.stalled, now-s.acked), s.failed`,
		`stalled, failed = 0, false`},
	{"a session resumes whatever its row says", "beat.go",
		`case changed == 0:`,
		`case changed < 0:`},
	{"the window is shorter than the right", "config.go",
		`return ttl + ttl*driftPercent/100 + margin(ttl) }`,
		`return right(ttl) * 9 / 10 }`},
	{"the watch is dated back", "observer.go",
		`s = sighting{pulse: p, since: received}`,
		`s = sighting{pulse: p, since: sent - window(p.ttl)/4}`},
	{"the left can die", "look.go",
		"where member_id = ? and seq = ? and state in ('alive', 'draining', 'condemned')`",
		"where member_id = ? and seq = ? and state <> 'dead'`"},
}

// The simulation is worth what it finds: each of these bugs, within the seeds that TestSim runs.
func TestTheSimulationCatchesMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), m.build(t), "-test.run=^TestSim$", "-seeds=2000").CombinedOutput()
			caught := regexp.MustCompile(`seed (\d+): (.*)`).FindSubmatch(out)
			if err == nil || caught == nil {
				t.Fatalf("not caught: got %v, want a seed that fails\n%s", err, out)
			}
			t.Logf("%s: caught by seed %s: %s", m.name, caught[1], caught[2])
		})
	}
}

// build compiles the tests of this package with the bug in it.
func (m mutant) build(t *testing.T) (binary string) {
	t.Helper()
	source, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("%s has %d times what this mutant changes, want 1: %s", m.file, n, m.old)
	}
	original, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, m.file)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		changed:                            strings.Replace(string(source), m.old, m.new, 1),
		filepath.Join(dir, "overlay.json"): string(overlay),
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	binary = filepath.Join(dir, "mutant.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}
