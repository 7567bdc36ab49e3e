package assign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// writes are the rows that were written, and the statements that wrote them, by table.
type writes struct {
	mu         sync.Mutex
	rows       map[string]int
	statements map[string]int
}

func (w *writes) add(stmt string, rows int64) {
	words := strings.Fields(stmt) // update table, insert into table, delete from table
	table := words[1]
	switch words[0] {
	case "select":
		return // it rings
	case "insert", "delete":
		table = words[2]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rows[table] += int(rows)
	w.statements[table]++
}

// counting is a group whose members' writes are counted.
type counting struct {
	*testing.T
	db  *coordd.DB
	tap *dbtest.Tap
}

// during is how many slots have other owners after something was done and all is settled, and what was
// written meanwhile.
func (c counting) during(members int, do func()) (moved int, w *writes) {
	c.Helper()
	before := owners(c.T, c.db)
	w = &writes{rows: map[string]int{}, statements: map[string]int{}}
	c.tap.Watch(w.add)
	do()
	c.settles(members)
	c.tap.Watch(nil)
	for slot, owner := range owners(c.T, c.db) {
		if owner != before[slot] {
			moved++
		}
	}
	c.Logf("%d slots moved: rows written %v, by statements %v", moved, w.rows, w.statements)
	return moved, w
}

// settles waits until so many members have all slots, and no slot is on its way or has to go.
func (c counting) settles(members int) {
	c.Helper()
	dbtest.Eventually(c.T, fmt.Sprintf("%d members that share the slots", members), func() bool { return shared(c.Context(), c.db, members) })
}

// shared says whether so many members have all slots, and no slot is on its way or has to go.
func shared(ctx context.Context, db *coordd.DB, members int) bool {
	moves, err := Preview(ctx, db, "g", nil, nil) // what is on its way has arrived, to it
	if err != nil || len(moves) > 0 {
		return false
	}
	shares, err := Shares(ctx, db, "g")
	for _, s := range shares {
		switch {
		case s.MemberID == "" || s.Leaving+s.Coming > 0:
			return false
		case s.Slots > 0:
			members--
		}
	}
	return err == nil && members == 0
}

// check compares what was written with the slots that moved: so many rows for each, a statement for
// many, and little else, however many jobs there are.
func (c counting) check(what string, moved int, w *writes, rows int) {
	c.Helper()
	if got := w.rows["coordd_slots"]; moved < 100 || got > rows*moved {
		c.Errorf("%s: got %d rows of slots written for %d that moved, want %d for each at most, and 100 moves or more", what, got, moved, rows)
	}
	if got := w.rows["coordd_jobs"]; got != 0 {
		c.Errorf("%s: got %d rows of jobs written, want none", what, got)
	}
	others, statements := 0, 0
	for table, n := range w.rows {
		if table != "coordd_slots" && table != "coordd_heartbeats" {
			others += n
		}
		if table != "coordd_heartbeats" {
			statements += w.statements[table]
		}
	}
	if others > 2*moved || statements > 2*moved {
		c.Errorf("%s: got %d rows that are no slots, and %d statements, for %d slots that moved; want less than two for each", what, others, statements, moved)
	}
}

// A move writes two rows for each slot, and taking over from one that has crashed one: none for a job.
func TestAMoveWritesTwoRowsASlotAndNoneAJob(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, dsn)
		c, b, ttl := counting{t, db, tap}, newBoard(), 2*shortTTL // so that a busy machine makes nobody try again
		grouped(t, db, Group{Name: "g", Slots: 600, Options: Options{Gather: 10 * time.Millisecond}}, 3000)
		serve := func(db *coordd.DB, name string) {
			servesAs(t, db, b, heartbeat.Config{Name: name, TTL: ttl}, Config{Group: "g"})
		}
		serve(db, "a")
		serve(db, "b")
		c.settles(2)

		crashing, network := dbtest.OpenTapped(t, dsn)
		moved, w := c.during(3, func() { serve(crashing, "c") })
		c.check("join", moved, w, 2)
		moved, w = c.during(2, func() {
			network.Disturb(func(context.Context, string, func() error) error { return errors.New("no network") })
		})
		c.check("crash", moved, w, 1)
	})
}
