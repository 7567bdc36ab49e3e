package main

import (
	"regexp"
	"testing"

	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// The daemon tells its load with its beats, and people see it.
func TestTheLoadIsShown(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		startMember(t, db, dsn, "app-1")
		var load *heartbeat.Load
		dbtest.Eventually(t, "a load", func() bool { load = members(t, db)[0].Load; return load != nil })
		if !(load.Memory > 0 && load.Memory < 1) || !(load.CPU >= 0 && load.CPU <= 1) {
			t.Fatalf("got %+v, want shares of CPU and memory", load)
		}
		if _, stdout, _ := run(t, "members", "--dsn", dsn, "-o", "wide"); !regexp.MustCompile(`LOAD\s.*\n.*cpu \d+% mem \d+% avg \d+\.\d`).MatchString(stdout) {
			t.Fatalf("got:\n%s\nwant the load", stdout)
		}
	})
}
