package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

// What the environment or a file says for `run` changes no other command, but where to look and the TTL.
func TestSettingsAreThoseOfRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "coordd.yaml")
	if err := os.WriteFile(file, []byte("label: {zone: b}\naddr: 127.0.0.1:1\nrestart-grace: 5s\nttl: 9s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []map[string]string{
		{"COORDD_CONFIG": file},
		{"COORDD_LABEL": "zone=b", "COORDD_ADDR": "127.0.0.1:1", "COORDD_RESTART_GRACE": "5s", "COORDD_TTL": "9s", "COORDD_YES": "true", "COORDD_FORCE": "true"},
	} {
		t.Run("", func(t *testing.T) {
			for name, value := range from {
				t.Setenv(name, value)
			}
			for _, test := range []struct{ command, flag, want string }{
				{"run", "label", "[zone=b]"},
				{"run", "restart-grace", "5s"},
				{"run", "ttl", "9s"},
				{"run", "addr", "127.0.0.1:1"},
				{"lock", "ttl", "9s"},
				{"elect", "ttl", "9s"},
				{"jobs add", "addr", "127.0.0.1:1"},
				{"jobs add", "label", "[]"},
				{"assign define", "restart-grace", "0s"},
				{"forget", "yes", "false"},
				{"locks release", "force", "false"},
			} {
				root := rootCommand()
				cmd, _, err := root.Find(strings.Split(test.command, " "))
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(cmd.ParseFlags(nil), root.PersistentPreRunE(cmd, nil)); err != nil {
					t.Fatal(err)
				}
				if got := cmd.Flag(test.flag).Value.String(); got != test.want {
					t.Errorf("%s --%s: got %s, want %s", test.command, test.flag, got, test.want)
				}
			}
		})
	}
	if err := os.WriteFile(file, []byte("yes: true"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, exitUsage, `there is no setting "yes"`, "members", "--config", file)
}

// What is on the command line of `config` counts before all else, as on that of `run`.
func TestConfigHeedsItsCommandLine(t *testing.T) {
	t.Setenv("COORDD_DSN", "sqlite:environment.db")
	code, stdout, stderr := run(t, "config", "print", "--dsn", "postgres://app:"+canary+"@db/x", "--ca-file", "ca.pem", "-o", "json")
	var all []setting
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || code != exitOK {
		t.Fatalf("got code %d, %v and %s", code, err, stderr)
	}
	shown := map[string]setting{}
	for _, s := range all {
		shown[s.Name] = s
	}
	if dsn, ca := shown["dsn"], shown["ca-file"]; dsn.Value != "postgres://app@db/x" || dsn.From != fromFlag || ca.Value != "ca.pem" || ca.From != fromFlag {
		t.Errorf("got %+v and %+v", dsn, ca)
	}
	if code, _, stderr := run(t, "config", "check", "--dsn", dbtest.SQLiteFile(t)); code != exitOK || strings.Contains(stderr, "environment.db") {
		t.Errorf("got code %d and %s", code, stderr)
	}
}
