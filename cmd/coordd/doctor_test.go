package main

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/coordd/coordd/internal/dbtest"
)

// finding is what programs read.
type finding struct {
	Name    *string
	Verdict *string
	Found   *string
	Fix     *string
}

// findings runs `coordd doctor -o json`.
func findings(t *testing.T, dsn string, code int, args ...string) map[string]finding {
	t.Helper()
	got, stdout, stderr := run(t, append([]string{"doctor", "-o", "json", "--dsn", dsn}, args...)...)
	if got != code {
		t.Fatalf("got code %d, want %d: %s%s", got, code, stdout, stderr)
	}
	if (stderr == "") != (code == exitOK) {
		t.Errorf("got code %d and stderr %q", code, stderr)
	}
	var all []finding
	if err := json.Unmarshal([]byte(stdout), &all); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	byName := map[string]finding{}
	for _, f := range all {
		if f.Name == nil || f.Verdict == nil || f.Found == nil || f.Fix == nil {
			t.Fatalf("a finding lacks a field: %s", stdout)
		}
		byName[*f.Name] = f
	}
	return byName
}

func TestTheDoctorsExitCodeIsItsVerdict(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		all := findings(t, dsn, exitOK, "--ttl", "15s") // warnings or not: the servers of tests do not flush
		for _, want := range []string{"connection", "version", "schema", "privileges", "history", "ttl", "latency", "clock", "pool"} {
			if f := all[want]; f.Verdict == nil || *f.Verdict != "ok" {
				t.Errorf("%s: got %v, want ok", want, f)
			}
		}
		all = findings(t, dsn, exitFailed, "--ttl", "20s")
		if got := *all["ttl"].Verdict; got != "failed" {
			t.Errorf("a TTL over the limit: got %s, want failed", got)
		}
		_, _, stderr := run(t, "doctor", "--dsn", dsn, "--ttl", "20s")
		if !strings.Contains(stderr, "findings have failed: ttl") {
			t.Errorf("got stderr %q, want what has failed", stderr)
		}
	})
}

func TestTheDoctorSaysWhatItCannotReach(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dsn := range []string{
		"postgres://app:" + canary + "@127.0.0.1:1/x", "mysql://app:" + canary + "@127.0.0.1:1/x", "sqlite:missing.db",
	} {
		all := findings(t, dsn, exitDatabase)
		if len(all) != 1 || *all["connection"].Verdict != "failed" || *all["connection"].Fix == "" {
			t.Errorf("%s: got %v, want a failed connection and how to mend it", dsn, all)
		}
	}
	dsn := with(t, dbtest.PostgresSchema(t), func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), canary) })
	if got := *findings(t, dsn, exitDatabase)["connection"].Found; !strings.Contains(got, "refused the user or password") {
		t.Errorf("got %s, want that the password was refused", got)
	}
	refused(t, exitUsage, "raise the TTL", "doctor", "--ttl", "1s")
	refused(t, exitUsage, "no such output format", "doctor", "-o", "xml")
}

// People read what to do below all that was found.
func TestTheDoctorsTableEndsWithWhatToDo(t *testing.T) {
	t.Parallel()
	dsn := dbtest.SQLiteFile(t)
	dbtest.Migrated(t, dsn)
	titles := func(args ...string) (all []string) {
		_, stdout, _ := run(t, append([]string{"doctor", "--dsn", dsn}, args...)...)
		for line := range strings.Lines(stdout) {
			if fields := strings.Fields(line); len(fields) > 0 && fields[0] == "NAME" {
				all = append(all, strings.Join(fields, " "))
			}
		}
		return all
	}
	for _, test := range []struct{ args, want []string }{
		{nil, []string{"NAME VERDICT FOUND"}},
		{[]string{"--ttl", "20s"}, []string{"NAME VERDICT FOUND", "NAME WHAT TO DO"}},
		{[]string{"--ttl", "20s", "-o", "wide"}, []string{"NAME VERDICT FOUND FIX"}},
	} {
		if got := titles(test.args...); !slices.Equal(got, test.want) {
			t.Errorf("%v: got %v, want %v", test.args, got, test.want)
		}
	}
}
