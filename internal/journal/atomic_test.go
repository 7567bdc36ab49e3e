package journal_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

// cut breaks the connection at one of the statements that pass, before it or after it.
type cut struct {
	at        int // 1 is the first one
	after     bool
	passed    int
	committed bool // it was a commit, and after it
}

func (c *cut) String() string { return fmt.Sprintf("statement %d, after it %v", c.at, c.after) }

func (c *cut) disturb(_ context.Context, stmt string, do func() error) error {
	c.passed++
	if c.passed > c.at || c.passed == c.at && !c.after {
		return dbtest.ErrReplyLost
	}
	err := do()
	if c.passed == c.at && err == nil {
		c.committed = stmt == "commit"
		return dbtest.ErrReplyLost
	}
	return err
}

// everyCut tries something with the connection cut at each of its statements in turn, and at
// last without a cut.
func everyCut(t *testing.T, db *coordd.DB, tap *dbtest.Tap, try func(c *cut) error) {
	t.Helper()
	db.Pool().SetMaxIdleConns(-1) // a connection that broke is gone, and its transaction with it
	if _, err := db.Product(t.Context()); err != nil {
		t.Fatal(err)
	}
	for at := 1; ; at++ {
		for _, after := range []bool{false, true} {
			c := &cut{at: at, after: after}
			tap.Disturb(c.disturb)
			err := try(c)
			if c.passed < at {
				if err != nil || at < 4 {
					t.Fatalf("uncut, after %d statements: got %v, want no error after 4 at least", c.passed, err)
				}
				return
			}
			if err == nil || c.committed && !errors.Is(err, coordd.ErrUnknownOutcome) {
				t.Fatalf("%v: got %v, want an error that tells", c, err)
			}
		}
	}
}

// found counts the rows whose column, named with its table, bears a subject.
func found(t *testing.T, db *coordd.DB, column, subject string) (n int) {
	t.Helper()
	if err := db.Get(t.Context(), []any{&n}, `select count(*) from `+column+` = ?`, subject); err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	inMeta   = "coordd_meta where name"
	inEvents = "coordd_events where subject"
	inOutbox = "coordd_outbox where subject"
)

// Wherever the connection breaks, at any statement, with or without its commit: the change and
// its event are both there, or neither is.
func TestE1AChangeAndItsEventAreOne(t *testing.T) {
	dbtest.AsAdministrator(t)
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		cutOff, tap := dbtest.OpenTapped(t, dsn)
		var want []string
		for _, way := range []struct {
			name   string
			record func(context.Context, coordd.Queries, ...journal.Event) error
			to     string
		}{{"append", journal.Append, inEvents}, {"outbox", journal.Outbox, inOutbox}} {
			everyCut(t, cutOff, tap, func(c *cut) error {
				subject := fmt.Sprintf("%s: %v", way.name, c)
				err := cutOff.Tx(t.Context(), func(tx coordd.Queries) error {
					// Any change: a row of its own.
					if _, err := tx.Exec(t.Context(), `insert into coordd_meta (name, value, text) values (?, 0, '')`, subject); err != nil {
						return err
					}
					return way.record(t.Context(), tx, event(subject))
				})
				both := 0
				if c.committed || err == nil {
					both = 1
					want = append(want, subject)
				}
				if change, told := found(t, db, inMeta, subject), found(t, db, way.to, subject); change != both || told != both {
					t.Fatalf("%s: got the change %d times and its event %d times, want both %d times", subject, change, told, both)
				}
				return err
			})
		}
		drained(t, db)
		if got := subjects(logged(t, db)); !slices.Equal(got, want) {
			t.Fatalf("the log: got %q, want %q", got, want)
		}
	})
}

// Wherever the connection breaks while an event is moved from the outbox into the log, it is in one of
// them.
func TestE1AnEventOfTheOutboxIsMovedOnce(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		cutOff, tap := dbtest.OpenTapped(t, dsn)
		var want []string
		everyCut(t, cutOff, tap, func(c *cut) error {
			subject := c.String()
			want = append(want, subject)
			posted(t, db, subject)
			_, err := journal.Drain(t.Context(), cutOff)
			moved := 0
			if c.committed || err == nil {
				moved = 1
			}
			if left, told := found(t, db, inOutbox, subject), found(t, db, inEvents, subject); left != 1-moved || told != moved {
				t.Fatalf("%s: got it %d times in the outbox and %d times in the log, want %d and %d", subject, left, told, 1-moved, moved)
			}
			drained(t, db)
			return err
		})
		if got := subjects(logged(t, db)); !slices.Equal(got, want) {
			t.Fatalf("the log: got %q, want %q", got, want)
		}
	})
}

// Who commits when another's commit has returned has the higher revision; and who reads all the
// while sees each revision when its turn comes, and never one below what was read.
func TestE1RevisionsFollowTheOrderOfCommits(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		const writers = 6
		each := max(5, dbtest.Runs(25))
		type commit struct {
			subject        string
			sent, answered time.Time // not later than the commit was sent, and not earlier than its answer
		}
		var commits [writers][]commit
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				for i := range each {
					c := commit{subject: fmt.Sprint(w, "/", i)}
					err := db.Tx(t.Context(), func(tx coordd.Queries) error {
						err := journal.Append(t.Context(), tx, event(c.subject))
						time.Sleep(rand.N(5 * time.Millisecond)) // others have time to be quicker
						if c.sent = time.Now(); i%5 == 4 {
							return errors.Join(err, errRolledBack)
						}
						return err
					})
					if c.answered = time.Now(); err == nil {
						commits[w] = append(commits[w], c)
					} else if !errors.Is(err, errRolledBack) {
						t.Error(err)
						return
					}
				}
			})
		}
		over := make(chan struct{})
		go func() { group.Wait(); close(over) }()
		revisions := map[string]int64{}
		for after, last := int64(0), false; !last; {
			last = closed(over) // one more look at what came before it
			page, err := journal.Read(t.Context(), db.Queries, after, 100)
			if err != nil {
				t.Error(err)
				break
			}
			for _, e := range page.Events {
				if after++; e.Revision != after {
					t.Errorf("got revision %d, want %d", e.Revision, after)
				}
				revisions[e.Subject] = e.Revision
			}
		}
		<-over
		all := slices.Concat(commits[:]...)
		if len(revisions) != len(all) || len(all) != writers*each*4/5 {
			t.Fatalf("got %d events read of %d commits, want %d of each", len(revisions), len(all), writers*each*4/5)
		}
		inOrder := 0
		for _, a := range all {
			for _, b := range all {
				if a.answered.Before(b.sent) {
					inOrder++
					if x, y := revisions[a.subject], revisions[b.subject]; x >= y {
						t.Fatalf("%s was committed before %s and has revision %d, not below %d", a.subject, b.subject, x, y)
					}
				}
			}
		}
		t.Logf("%d commits, %d pairs of which one was over before the other was sent", len(all), inOrder)
	})
}
