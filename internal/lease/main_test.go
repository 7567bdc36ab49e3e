package lease

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// shortTTL makes real-time tests short, and leaves a loaded machine some room.
var shortTTL = dbtest.Stretch(2 * time.Second)

// patientTTL is for sessions to which nothing is to happen, on however busy a machine.
const patientTTL = 15 * time.Second

// joined joins for longer than a busy machine stands still, beats as if its TTL were short, and leaves with the test.
func joined(t *testing.T, db *coordd.DB, name string) *heartbeat.Session {
	t.Helper()
	return joinedWith(t, db, heartbeat.Config{Name: name, TTL: patientTTL, Beat: shortTTL / 3})
}

// brief joins for a short time: its session is to end.
func brief(t *testing.T, db *coordd.DB, name string) *heartbeat.Session {
	t.Helper()
	return joinedWith(t, db, heartbeat.Config{Name: name, TTL: shortTTL})
}

func joinedWith(t *testing.T, db *coordd.DB, cfg heartbeat.Config) *heartbeat.Session {
	t.Helper()
	s, err := heartbeat.Join(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Leave(context.Background()) })
	return s
}

// tried is a right that was to be had.
func tried(t *testing.T, s *heartbeat.Session, w Want) *Held {
	t.Helper()
	h, err := Try(t.Context(), s, w)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func released(t *testing.T, h *Held) {
	t.Helper()
	if err := h.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// These tell the statements that a session sends now and then, in any database's words.
func isBeat(stmt string) bool { return strings.Contains(stmt, "seq = seq + 1") }
func isLook(stmt string) bool { return strings.Contains(stmt, "b.seq, b.ttl_ms") }
func isRead(stmt string) bool { return strings.HasPrefix(stmt, "select coordd_leases.token") }
func isGrant(stmt string) bool {
	return strings.HasPrefix(stmt, "update coordd_leases set holder = ") && strings.Contains(stmt, "token_floor")
}
func isSupersede(stmt string) bool {
	return strings.HasPrefix(stmt, "update coordd_leases set token = token + 1")
}
func isSweep(stmt string) bool { return strings.HasPrefix(stmt, "select 'lease'") }

var alone = Want{Name: "lock/x"}
