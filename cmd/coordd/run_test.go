package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

var (
	kills = flag.Int("kills", 1, "how often TestAKilledProcessIsSeenDead kills one")
	ttl   = flag.Duration("ttl", 2*time.Second, "TTL of the processes that tests start")
)

// startMember starts a member and waits until it is one.
func startMember(t *testing.T, db *coordd.DB, dsn, name string) (*process, heartbeat.Member) {
	t.Helper()
	p := start(t, dsn, "run", "--listen", "off", "--ttl", dbtest.Stretch(*ttl).String(), "--name", name)
	var member heartbeat.Member
	dbtest.Eventually(t, name+" alive", func() bool {
		i := slices.IndexFunc(members(t, db), func(m heartbeat.Member) bool {
			member = m
			return m.Name == name && m.State == heartbeat.Alive
		})
		return i >= 0
	})
	return p, member
}

func members(t *testing.T, db *coordd.DB) []heartbeat.Member {
	t.Helper()
	all, err := heartbeat.Members(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func stateOf(t *testing.T, db *coordd.DB, id string) heartbeat.State {
	t.Helper()
	for _, m := range members(t, db) {
		if m.ID == id {
			return m.State
		}
	}
	return "absent"
}

// states runs `coordd members` and tells each name's state.
func states(t *testing.T, dsn string) map[string]string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), []string{"members", "--dsn", dsn, "-o", "json"}, &stdout, &stderr); code != exitOK {
		t.Fatalf("coordd members: got exit code %d, want %d: %s", code, exitOK, &stderr)
	}
	var shown []httpapi.Member
	if err := json.Unmarshal(stdout.Bytes(), &shown); err != nil {
		t.Fatalf("%v in %s", err, &stdout)
	}
	states := map[string]string{}
	for _, m := range shown {
		states[m.Name] = m.State
	}
	return states
}

func TestThreeProcessesSeeEachOtherComeAndGo(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		first, _ := startMember(t, db, dsn, "app-1")
		second, leaver := startMember(t, db, dsn, "app-2")
		third, victim := startMember(t, db, dsn, "app-3")
		if got, want := fmt.Sprint(states(t, dsn)), "map[app-1:alive app-2:alive app-3:alive]"; got != want {
			t.Fatalf("members: got %v, want %v", got, want)
		}
		third.signal(t, syscall.SIGKILL)
		dbtest.Eventually(t, "app-3 dead", func() bool { return stateOf(t, db, victim.ID) == heartbeat.Dead })
		second.signal(t, syscall.SIGTERM)
		if code := second.exit(t); code != exitOK {
			t.Fatalf("exit code after SIGTERM: got %d, want %d", code, exitOK)
		}
		if got := stateOf(t, db, leaver.ID); got != heartbeat.Left {
			t.Fatalf("app-2: got %s, want %s", got, heartbeat.Left)
		}
		if got, want := fmt.Sprint(states(t, dsn)), "map[app-1:alive app-2:left app-3:dead]"; got != want {
			t.Fatalf("members: got %v, want %v", got, want)
		}
		first.signal(t, syscall.SIGINT)
		if code := first.exit(t); code != exitOK {
			t.Fatalf("exit code after SIGINT: got %d, want %d", code, exitOK)
		}
	})
}

// A process that was frozen finds itself dead, joins again, and its old row never moves.
func TestAFrozenProcessJoinsAgain(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		startMember(t, db, dsn, "watcher")
		frozen, old := startMember(t, db, dsn, "frozen")
		frozen.signal(t, syscall.SIGSTOP)
		dbtest.Eventually(t, "frozen dead", func() bool { return stateOf(t, db, old.ID) == heartbeat.Dead })
		time.Sleep(2 * dbtest.Stretch(*ttl)) // three TTLs in all: the state is the same for ever
		pulse := func() (seq, at int64) {
			if err := db.Get(t.Context(), []any{&seq, &at}, `select seq, beat_us from coordd_heartbeats where member_id = ?`, old.ID); err != nil {
				t.Fatal(err)
			}
			return seq, at
		}
		seq, at := pulse()
		frozen.signal(t, syscall.SIGCONT)
		dbtest.Eventually(t, "frozen alive as somebody else", func() bool {
			return slices.ContainsFunc(members(t, db), func(m heartbeat.Member) bool {
				return m.Name == "frozen" && m.ID != old.ID && m.State == heartbeat.Alive
			})
		})
		dbtest.Eventually(t, "the loss in its log", func() bool { return strings.Contains(frozen.output.String(), "session lost") })
		time.Sleep(dbtest.Stretch(*ttl))
		if nowSeq, nowAt := pulse(); nowSeq != seq || nowAt != at || stateOf(t, db, old.ID) != heartbeat.Dead {
			t.Fatalf("the dead row: got seq %d at %d, want %d at %d", nowSeq, nowAt, seq, at)
		}
	})
}

// It measures too: go test ./cmd/coordd -run Killed -v -kills 20 -ttl 6s
func TestAKilledProcessIsSeenDead(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db, ttl := dbtest.Migrated(t, dsn), dbtest.Stretch(*ttl)
		startMember(t, db, dsn, "watcher-1")
		startMember(t, db, dsn, "watcher-2")
		var took []time.Duration
		for i := range *kills {
			p, victim := startMember(t, db, dsn, fmt.Sprintf("victim-%d", i))
			// Its first beat, and a part of the time to the next, so that runs differ.
			time.Sleep(ttl/3 + ttl/3*time.Duration(i)/time.Duration(*kills))
			killed := time.Now()
			p.signal(t, syscall.SIGKILL)
			dbtest.Eventually(t, "the victim dead", func() bool { return stateOf(t, db, victim.ID) == heartbeat.Dead })
			took = append(took, time.Since(killed))
		}
		slices.Sort(took)
		t.Logf("TTL %v, %d kills: seen dead after %v (median), %v (maximum); promised within %v",
			ttl, *kills, took[len(took)/2], took[len(took)-1], ttl+ttl/100+max(200*time.Millisecond, ttl/20)+ttl/3)
		for name, state := range states(t, dsn) {
			if strings.HasPrefix(name, "watcher") && state != "alive" {
				t.Fatalf("%s: got %s, want alive", name, state)
			}
		}
	})
}

func TestDevShowsThreeMembers(t *testing.T) {
	t.Parallel()
	p := start(t, "", "run", "--dev", "--listen", "127.0.0.1:0")
	dbtest.Eventually(t, "the welcome", func() bool { return strings.Contains(p.output.String(), "Ctrl-C ends it.") })
	for _, name := range []string{"dev-1  alive", "dev-2  alive", "dev-3  alive", "single host only"} {
		if got := p.output.String(); !strings.Contains(got, name) {
			t.Fatalf("got:\n%s\nwant it to show %q", got, name)
		}
	}
	p.signal(t, syscall.SIGINT)
	if code := p.exit(t); code != exitOK {
		t.Fatalf("exit code: got %d, want %d", code, exitOK)
	}
}
