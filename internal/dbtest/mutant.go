package dbtest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// CatchMutant builds the tests of this folder with a deliberate mistake in them, one place in one
// file changed, and requires that TestSim fails by one of so many seeds. It tries the one first, some
// times, by which it is known to fail, as the test logs with -v; another change may move that. The file
// is named from the folder. A mutant is tied to the text that it changes, and fails loudly when that
// text has moved.
func CatchMutant(t *testing.T, known, seeds int, file, old, new string) {
	t.Helper()
	binary := buildMutant(t, file, old, new)
	var out []byte
	for _, which := range [][]string{
		{"-seed=" + strconv.Itoa(known), "-test.count=20", "-test.failfast"}, // goroutines take turns as they like
		{"-seeds=" + strconv.Itoa(seeds)},
	} {
		var err error
		out, err = exec.CommandContext(t.Context(), binary, append(which, "-test.run=^TestSim$")...).CombinedOutput()
		caught := regexp.MustCompile(`seed (\d+): (.*)`).FindSubmatch(out)
		if err != nil && caught != nil {
			t.Logf("caught by seed %s: %s", caught[1], caught[2])
			return
		}
		t.Logf("not caught by %s", which)
	}
	t.Fatalf("not caught: want a seed that fails\n%s", out)
}

// CatchMutantBy is CatchMutant by a test of that name, for a moment that the simulation meets too
// seldom.
func CatchMutantBy(t *testing.T, test, file, old, new string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), buildMutant(t, file, old, new), "-test.run=^"+test+"$").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--- FAIL: "+test) {
		t.Fatalf("not caught: want %s to fail\n%s", test, out)
	}
}

func buildMutant(t *testing.T, file, old, new string) (binary string) {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), old); n != 1 {
		t.Fatalf("%s has %d times what this mutant changes, want 1: %s", file, n, old)
	}
	original, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, filepath.Base(file))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		changed:                            strings.Replace(string(source), old, new, 1),
		filepath.Join(dir, "overlay.json"): string(overlay),
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	binary = filepath.Join(dir, "mutant.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}
