package heartbeat

import (
	"strings"
	"testing"

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
	} {
		if got := gone(theirs, ours); got != want {
			t.Errorf("%q: got gone %v, want %v", theirs, got, want)
		}
	}
}

func TestARestartNeedNotWaitForItsPredecessor(t *testing.T) {
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
		joined(t, db, Config{Name: "a"})
		if a, b, c := stateOf(t, db, ended.ID()), stateOf(t, db, lives.ID()), stateOf(t, db, other.ID()); a != Dead || b != Alive || c != Alive {
			t.Fatalf("the ended one, one that lives, one of another name: got %s, %s, %s, want %s, %s, %s", a, b, c, Dead, Alive, Alive)
		}
	})
}
