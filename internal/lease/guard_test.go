package lease

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// guards are the one there is, and two that look like it: they ask for the same row, and keep
// nobody from changing it.
var guards = map[string]struct {
	guard func(ctx context.Context, h *Held, q coordd.Queries, id string) error
	want  porcupine.CheckResult // of the history in which another takes over between guard and commit
}{
	"as it is": {
		func(ctx context.Context, h *Held, q coordd.Queries, _ string) error {
			stmt, args := h.guard(false)
			return q.Get(ctx, []any{new(string)}, stmt, args...)
		}, porcupine.Ok,
	},
	"without its lock": {
		func(ctx context.Context, h *Held, q coordd.Queries, _ string) error {
			stmt, args := h.guard(false)
			return q.Get(ctx, []any{new(string)}, strings.TrimSuffix(stmt, "{share}"), args...)
		}, porcupine.Illegal,
	},
	"as a condition of the write": {
		func(ctx context.Context, h *Held, q coordd.Queries, id string) error {
			_, args := h.guard(false)
			changed, err := q.Exec(ctx, `update written set done = 1 where id = ?
				and exists (select 1 from coordd_leases where name = ? and grant_id = ? and token = ?)`, append([]any{id}, args[1:]...)...)
			if err == nil && changed == 0 {
				err = sql.ErrNoRows
			}
			return err
		}, porcupine.Illegal,
	},
}

// A holder is declared dead between its guard and its commit, and another takes over if it can.
// Only the guard as it is keeps that one waiting for the commit; with each of the others a stale
// transaction is committed, and its history is rejected. SQLite, with its one writer, needs no
// lock, and nothing comes between the two there.
func TestOnlyAGuardThatLocksGuards(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]func(testing.TB) string{"postgres": dbtest.PostgresSchema, "mysql": dbtest.MySQLSchema} {
		for how, g := range guards {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				dbtest.AsAdministrator(t)
				db := dbtest.Migrated(t, schema(t))
				if _, err := db.Exec(t.Context(), `create table written (id varchar(36) not null primary key, done integer not null)`); err != nil {
					t.Fatal(err)
				}
				r := &recorder{T: t, db: db, began: time.Now(), ops: map[string][]op{}, ends: map[string]op{}}
				if got := check(r.takeover(g.guard, g.want), dbtest.Patience); got != g.want {
					t.Errorf("got %s, want %s: %+v", got, g.want, r.ops[alone.Name])
				}
			})
		}
	}
}

// takeover has the guard of one holder passed, another take over if it can, which is waited for if it should, and the
// first commit.
func (r *recorder) takeover(guard func(context.Context, *Held, coordd.Queries, string) error, want porcupine.CheckResult) []op {
	patience := time.Second
	if want == porcupine.Illegal {
		patience = dbtest.Patience
	}
	first := joinedWith(r.T, r.db, heartbeat.Config{Name: "first", TTL: patientTTL})
	second := joinedWith(r.T, r.db, heartbeat.Config{Name: "second", TTL: patientTTL})
	took := func(s *heartbeat.Session, take func() (*Held, error)) *Held {
		from := r.now()
		h, err := take()
		if err == nil {
			r.note(alone.Name, op{From: from, To: r.now(), Do: "take", By: s.ID(), ID: h.id, Token: h.Token()})
		}
		return h
	}
	h := took(first, func() (*Held, error) { return Try(r.Context(), first, alone) })
	tx, err := r.db.Begin(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	defer tx.Rollback()
	id := uuid.NewString()
	if _, err := r.db.On(tx).Exec(r.Context(), `insert into written (id, done) values (?, 0)`, id); err != nil {
		r.Fatal(err)
	}
	if err := guard(r.Context(), h, r.db.On(tx), id); err != nil {
		r.Fatal(err)
	}
	from := r.now()
	declaredDead(r.T, r.db, first)
	r.note(alone.Name, op{From: from, To: r.now(), Do: end, By: first.ID()})

	next := took(second, func() (*Held, error) {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		return Try(ctx, second, alone)
	})
	from = r.now()
	if err := tx.Commit(); err != nil {
		r.Fatal(err)
	}
	r.note(alone.Name, op{From: from, To: r.now(), Do: commit, By: first.ID(), ID: h.id})
	if next == nil {
		next = took(second, func() (*Held, error) { return Acquire(r.Context(), second, alone) })
	}
	released(r.T, h) // which it has not been told to have lost
	released(r.T, next)
	return r.ops[alone.Name]
}
