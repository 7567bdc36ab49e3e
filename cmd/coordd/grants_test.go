package main

import (
	"strings"
	"testing"
)

// What the README says of grants is what the command prints.
func TestTheReadmeHasTheGrantsThatTheCommandPrints(t *testing.T) {
	for database, dsn := range map[string]string{
		"postgres": "postgres://app:" + canary + "@127.0.0.1:1/x", // which is not asked
		"mysql":    "app:" + canary + "@tcp(127.0.0.1:1)/x",
	} {
		want := strings.Join(grants(t, database), ";") + ";\n"
		for _, args := range [][]string{
			{"migrate", "grants", database},
			{"migrate", "grants", "--dsn", dsn, "--user", "coordd"},
		} {
			code, stdout, stderr := run(t, args...)
			if code != exitOK || stdout != want || stderr != "" {
				t.Errorf("coordd %v: got code %d, %q and\n%s\nwant the README's\n%s", args, code, stderr, stdout, want)
			}
		}
	}
}

func TestGrantsAreForServersOnly(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("COORDD_DSN", "")
	refused(t, exitUsage, "SQLite has no users", "migrate", "grants")
	refused(t, exitUsage, "say for which database", "migrate", "grants", "oracle")
	refused(t, exitUsage, "say for which database, once", "migrate", "grants", "mysql", "postgres")
	refused(t, exitUsage, "say to which user", "migrate", "grants", "mysql", "--user", "")
}
