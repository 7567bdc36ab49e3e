package heartbeat

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coordd/coordd/internal/dbtest"
)

// These tests run real SQL on SQLite in virtual time, so that hours cost nothing and times
// are exact.

// M2: a dead member is seen dead within TTL * 1.01 + margin + one beat.
func TestDeathIsSeenInTime(t *testing.T) {
	for _, ttl := range []time.Duration{1200 * time.Millisecond, DefaultTTL, 15 * time.Second} {
		t.Run(ttl.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := dbtest.Migrated(t, dbtest.SQLiteFile(t))
				survivor := joined(t, db, Config{Name: "survivor"}) // its own TTL does not matter
				for range 20 {
					victim := joined(t, db, Config{Name: "victim", TTL: ttl})
					time.Sleep(time.Minute + rand.N(ttl))
					victim.kill()
					died, bound := time.Now(), window(ttl)+min(ttl/3, survivor.cfg.Beat)
					for stateOf(t, db, victim.ID()) == Alive {
						if time.Since(died) > bound {
							t.Fatalf("TTL %v: not seen dead after %v, want within %v", ttl, time.Since(died), bound)
						}
						time.Sleep(50 * time.Millisecond)
					}
				}
				if survivor.Err() != nil || !survivor.Valid() {
					t.Fatalf("the survivor: got valid %v, error %v", survivor.Valid(), survivor.Err())
				}
			})
		})
	}
}

// M1: who beats is never declared dead, for a day.
func TestWhoBeatsLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dbtest.Migrated(t, dbtest.SQLiteFile(t))
		var all []*Session
		for _, name := range []string{"a", "b", "c"} {
			all = append(all, joined(t, db, Config{Name: name}))
		}
		for range 60 {
			time.Sleep(time.Minute)
			for _, s := range all {
				if !s.Valid() || stateOf(t, db, s.ID()) != Alive {
					t.Fatalf("%s: got valid %v, state %s", s.Name(), s.Valid(), stateOf(t, db, s.ID()))
				}
			}
		}
	})
}

// At the default TTL a member costs one statement a second.
func TestAMemberCostsOneStatementASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := dbtest.SQLiteFile(t)
		dbtest.Migrated(t, file)
		db, tap := dbtest.OpenTapped(t, file)
		const members, seconds = 5, 600
		for range members {
			joined(t, db, Config{Name: "a"})
		}
		before := tap.Statements()
		time.Sleep(seconds * time.Second)
		if got, most := tap.Statements()-before, members*seconds; got > most || got < most/2 {
			t.Fatalf("%d members in %d s: got %d statements, want at most %d", members, seconds, got, most)
		}
	})
}
