package main

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/internal/dbtest"
)

var imported = flag.Int("imported", 5_000, "how many jobs TestAnInterruptedImportIsCompleted adds")

// An import that is interrupted in the middle leaves what it has said to be there, and the same
// command again completes it.
func TestAnInterruptedImportIsCompleted(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		var keys bytes.Buffer
		for i := range *imported {
			fmt.Fprintf(&keys, "job-%d\n", i)
		}
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, keys.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		count := func() (n int) {
			if err := db.Get(t.Context(), []any{&n}, `select count(*) from coordd_jobs where grp = 'g'`); err != nil {
				t.Fatal(err)
			}
			return n
		}
		first := start(t, dsn, "jobs", "add", "g", "--from", file)
		dbtest.Eventually(t, "the first jobs", func() bool { return count() > jobsAtOnce }) // it knows of some
		first.signal(t, syscall.SIGINT)
		code := first.exit(t)
		there := count()
		if there%jobsAtOnce != 0 || there < *imported && (code == 0 || !strings.Contains(first.output.String(), "run the same again for the others")) {
			t.Errorf("interrupted with %d of %d jobs: got code %d, %s", there, *imported, code, first.output)
		}
		began := time.Now()
		again := start(t, dsn, "jobs", "add", "g", "--from", file)
		if code := again.exit(t); code != 0 || count() != *imported {
			t.Errorf("again: got code %d and %d jobs, want 0 and %d\n%s", code, count(), *imported, again.output)
		}
		var added, were int // more than there were when it ended, if the database committed once more after that
		last := regexp.MustCompile(`\d+ jobs added to g, \d+ were there`).FindString(again.output.String())
		if _, err := fmt.Sscanf(last, "%d jobs added to g, %d were there", &added, &were); err != nil || added+were != *imported || were < there || were > there+jobsAtOnce || were%jobsAtOnce != 0 {
			t.Errorf("again: got %s, want all of %d jobs told, of which %d were there", again.output, *imported, there)
		}
		t.Logf("interrupted after %d jobs; the other %d took %v", were, added, time.Since(began))
	})
}

// Through a daemon jobs are sent in as many requests as their payloads need.
func TestJobsWithPayloadsAreAddedThroughADaemon(t *testing.T) {
	dsn, address := dbtest.SQLiteFile(t), freeAddress(t)
	db := dbtest.Migrated(t, dsn)
	start(t, dsn, "run", "--listen", address)
	dbtest.Eventually(t, "a daemon that answers", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	var keys bytes.Buffer
	for i := range 600 {
		fmt.Fprintf(&keys, "job-%d\n", i)
	}
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, keys.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--from", file, "--payload", strings.Repeat("p", 1000)}, "600 jobs added to g, 0 were there"},
		{[]string{"one", "two", "--payload", strings.Repeat("<", 64<<10)}, "2 jobs added to g, 0 were there"},
		{[]string{"one", "three", "--payload", "other"}, "1 jobs added to g, 1 were there and stay as they are"},
	} {
		add := start(t, "", append([]string{"jobs", "add", "g", "--addr", address}, test.args...)...)
		if code := add.exit(t); code != 0 || !strings.Contains(add.output.String(), test.want) {
			t.Errorf("got code %d, %s; want %q", code, add.output, test.want)
		}
	}
	if one, err := assign.Lookup(t.Context(), db, "g", "one"); err != nil || len(one.Payload) != 64<<10 {
		t.Errorf("got %d bytes of payload, %v; want those that it had", len(one.Payload), err)
	}
}
