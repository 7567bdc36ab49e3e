package heartbeat

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestOnlyAProcessOfThisMachineThatHasEndedIsGone(t *testing.T) {
	ours := process()
	if ours == "" {
		t.Skip("this system does not tell processes apart")
	}
	f := strings.Fields(ours)
	with := func(i int, s string) string {
		g := append([]string(nil), f...)
		g[i] = s
		return strings.Join(g, " ")
	}
	for theirs, want := range map[string]bool{
		ours:                     false, // it lives
		"":                       false, // nothing is known
		with(0, "another-boot"):  false, // of another machine, or before a reboot
		with(2, "65533"):         false, // of a user that may hide its processes
		with(1, "pid:[1]"):       false, // in another container
		with(4, "1"):             true,  // its PID was given to somebody else: us
		with(3, "4194305"):       true,  // above any PID there can be
		strings.Join(f[:4], " "): false,
		with(3, "self/../self"):  false,
		with(3, "-1"):            false, // everybody
		with(3, "0"):             false, // our group
	} {
		if got := gone("/proc", theirs, ours); got != want {
			t.Errorf("%q: got gone %v, want %v", theirs, got, want)
		}
	}
}

// With hidepid=2 a live process that may not be dumped is shown to nobody, also not to its own
// user.
func TestAProcessThatIsHiddenIsNotGone(t *testing.T) {
	ours := process()
	if ours == "" {
		t.Skip("this system does not tell processes apart")
	}
	ended := exec.CommandContext(t.Context(), "true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(ours)
	f[3] = strconv.Itoa(ended.Process.Pid)
	hiding := t.TempDir() // a /proc that shows nobody
	for theirs, want := range map[string]bool{ours: false, strings.Join(f, " "): true} {
		if got := gone(hiding, theirs, ours); got != want {
			t.Errorf("%q: got gone %v, want %v", theirs, got, want)
		}
	}
}

func TestARestartNeedNotWaitForItsPredecessor(t *testing.T) {
	dbtest.AsAdministrator(t)
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		ended, lives, other := joined(t, db, Config{Name: "a"}), joined(t, db, Config{Name: "a"}), joined(t, db, Config{Name: "b"})
		ended.kill()
		f := strings.Fields(ended.process)
		if len(f) != 5 {
			t.Skip("this system does not tell processes apart")
		}
		f[4] = "1" // as if another process had had this PID
		for _, id := range []string{ended.ID(), other.ID()} {
			if _, err := db.Exec(t.Context(), `update coordd_members set process = ? where id = ?`, strings.Join(f, " "), id); err != nil {
				t.Fatal(err)
			}
		}
		joined(t, db, Config{Name: "a", TTL: 15 * time.Second})
		if a, b, c := stateOf(t, db, ended.ID()), stateOf(t, db, lives.ID()), stateOf(t, db, other.ID()); a != Dead || b != Alive || c != Alive {
			t.Fatalf("the ended one, one that lives, one of another name: got %s, %s, %s, want %s, %s, %s", a, b, c, Dead, Alive, Alive)
		}
	})
}

// Where the pool is exhausted, nobody answers who the predecessors are. Join waits for a timeout and
// no longer, and beats meanwhile.
func TestAJoinThatCannotAskForItsPredecessorIsConnected(t *testing.T) {
	if process() == "" {
		t.Skip("this system does not tell processes apart")
	}
	synctest.Test(t, func(t *testing.T) {
		_, db, tap := dbtest.VirtualTime(t)
		asked := false
		tap.Disturb(func(ctx context.Context, stmt string, do func() error) error {
			if strings.HasPrefix(stmt, "select m.id, m.process") {
				asked = true
				return dbtest.Pause(ctx, time.Hour)
			}
			return do()
		})
		began := time.Now()
		s := joined(t, db, Config{Name: "a"})
		if took := time.Since(began); !asked || !s.Valid() || took > s.cfg.Timeout {
			t.Fatalf("got asked %v, valid %v after %v, want it valid after %v", asked, s.Valid(), took, s.cfg.Timeout)
		}
	})
}

// A program for which a member holds something lives on when the member is killed, and counts on it
// until the member's right would have run out.
func TestWhoHoldsForOthersHasNoSuccessor(t *testing.T) {
	if process() == "" {
		t.Skip("this system does not tell processes apart")
	}
	dbtest.AsAdministrator(t)
	for what, stmt := range map[string]string{
		"a lease":          `insert into coordd_leases (name, holder, grant_id, token, value, request, since_us, client, guards) values ('lock/x', ?, 'g', 1, '', '', 0, ?, 0)`,
		"a share of one":   `insert into coordd_shared (lease, member_id, grant_id, token, since_us, client, guards) values ('lock/x', ?, 'g', 1, 0, ?, 0)`,
		"a group's stream": `insert into coordd_group_members (grp, member_id, seen, since_us, client) values ('g', ?, 0, 0, ?)`,
	} {
		t.Run(what, func(t *testing.T) {
			dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
				f := strings.Fields(process())
				f[4] = "1" // as if another process had had this PID
				for client, want := range map[string]State{"": Dead, "program": Alive} {
					name := "a" + client
					ended := joined(t, db, Config{Name: name, TTL: 15 * time.Second}) // nobody sees it dead meanwhile
					ended.kill()
					if _, err := db.Exec(t.Context(), `update coordd_members set process = ? where id = ?`, strings.Join(f, " "), ended.ID()); err != nil {
						t.Fatal(err)
					}
					if _, err := db.Exec(t.Context(), stmt, ended.ID(), client); err != nil {
						t.Fatal(err)
					}
					joined(t, db, Config{Name: name, TTL: 15 * time.Second})
					if got := stateOf(t, db, ended.ID()); got != want {
						t.Errorf("one that was killed and held it for %q: got %s, want %s", client, got, want)
					}
					if _, err := db.Exec(t.Context(), `delete from `+strings.Fields(stmt)[2]); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// What a client has started may outlive it, so its end frees nothing before its right has run out.
func TestAClientHasNoSuccessor(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		client, server := joined(t, db, Config{Name: "a", Kind: Client}), joined(t, db, Config{Name: "b"})
		if client.process != "" || server.process != process() {
			t.Errorf("processes: got %q and %q, want none of a client", client.process, server.process)
		}
		members, err := Members(t.Context(), db)
		if err != nil || len(members) != 2 || members[0].Kind != Client || members[1].Kind != Server {
			t.Errorf("got %v and %v, want a client and a server", members, err)
		}
	})
}
