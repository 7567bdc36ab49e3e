package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// scripted is a daemon that answers what a test has it answer, by path.
func scripted(t *testing.T, answers map[string]func() string) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := answers[r.URL.Path]
		if answer == nil {
			t.Errorf("it was asked for %s", r.URL.Path)
			answer = func() string { return "" }
		}
		fmt.Fprint(w, answer())
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func always(answer string) func() string { return func() string { return answer } }

// Where a daemon's database is away, nothing is said of it but that.
func TestADaemonWithoutItsDatabaseIsToldOf(t *testing.T) {
	t.Parallel()
	address := scripted(t, map[string]func() string{
		"/v1/status": always(`{"version":"1","sessions":[{"name":"app-7","status":"suspended"}],"loops":[],"database":{"reachable":false,"members":{},
			"problem":{"status":503,"code":"database_unreachable","title":"The daemon cannot reach the database"}}}`),
		"/v1/doctor": always(`{"findings":[{"name":"connection","verdict":"failed","found":"it is down","fix":"start it"}]}`),
	})
	code, stdout, _ := run(t, "status", "--addr", address)
	if code != exitOK || !strings.Contains(stdout, "cannot reach the database") || !strings.Contains(stdout, "session app-7") || strings.Contains(stdout, "history") || strings.Contains(stdout, "revision") {
		t.Errorf("status: got code %d and %s", code, stdout)
	}
	code, stdout, stderr := run(t, "doctor", "--addr", address)
	if code != exitDatabase || !strings.Contains(stdout, "start it") || !strings.Contains(stderr, "no database to examine: it is down") {
		t.Errorf("doctor: got code %d, %s and %s", code, stdout, stderr)
	}
}

// A member that has not beaten since it was asked does not know, and what it holds then says nothing.
func TestDrainWaitsForABeat(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	address := scripted(t, map[string]func() string{
		"/v1/members/app-7/drain": always(`{"id":"1","name":"app-7","state":"draining"}`),
		"/v1/members/1": func() string {
			state := []string{`"age_ms":5000`, `"age_ms":5200`, `"age_ms":1,"held":1`, `"age_ms":1`}[min(looks.Add(1), 4)-1]
			return `{"id":"1","name":"app-7","state":"draining",` + state + `}`
		},
	})
	code, _, stderr := run(t, "drain", "app-7", "--wait", "1m", "--addr", address)
	if code != exitOK || looks.Load() != 4 || !strings.Contains(stderr, "holds 1 rights") || !strings.Contains(stderr, "holds nothing") {
		t.Errorf("got code %d after %d looks: %s", code, looks.Load(), stderr)
	}
}
