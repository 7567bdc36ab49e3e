package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

// What the README shows of the demo is what it does.
func TestTheDemoOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for _, block := range strings.Split(string(readme), "```") {
		if strings.HasPrefix(block, "\nMEMBER ") {
			tables = strings.Split(strings.TrimSpace(block), "\n\n")
		}
	}
	if len(tables) != 2 {
		t.Fatalf("the README shows %d tables of the demo, want 2", len(tables))
	}
	demo := start(t, "", "run", "--dev", "--listen", "off")
	shows := func(args ...string) string {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe, args...)
		cmd.Env = append(os.Environ(), beCoordd+"=1", "COORDD_DSN=sqlite:"+filepath.Join(demo.cmd.Dir, "coordd.db"))
		out, _ := cmd.Output() // it fails until there is a demo
		return strings.TrimSpace(string(out))
	}
	for i, want := range tables {
		if i == 1 {
			shows("forget", "dev-2", "--yes")
		}
		dbtest.Eventually(t, "as the README shows it:\n"+want, func() bool {
			return shows("assign", "show", "demo") == want || strings.Contains(demo.output.String(), want) // it may be over soon
		})
	}
	dbtest.Eventually(t, "the jobs of the killed one at others, and progress on the terminal", func() bool {
		return strings.Contains(shows("assign", "show", "demo"), "dev-2   alive") && strings.Contains(demo.output.String(), "condemned")
	})
}
