package lease

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/dbtest"
)

// How many times a second a lock is taken and given back that nobody contends for, beside what the
// same pool does with bare statements: the very two that this takes, and the plainest two updates
// by a primary key. They take turns, some cycles each, so that whatever else the machine does
// befalls them all; what counts is the ratio.
func BenchmarkBesideBareStatements(b *testing.B) {
	for _, database := range []struct {
		name   string
		schema func(testing.TB) string
	}{{"postgres", dbtest.PostgresSchema}, {"mysql", dbtest.MySQLSchema}, {"sqlite", dbtest.SQLiteFile}} {
		dsn := database.schema(b)
		dbtest.Migrated(b, dsn)
		for _, workers := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%d", database.name, workers), func(b *testing.B) { beside(b, dbtest.Open(b, dsn), workers) })
		}
	}
}

// rivals of a benchmark, and how many cycles each does before the next one's turn.
var (
	rivalsOf = []string{"lock", "same statements", "plain pair"}
	inARow   = 25
)

func beside(b *testing.B, db *coordd.DB, workers int) {
	if db.Pool().Stats().MaxOpenConnections == 0 {
		db.Pool().SetMaxIdleConns(workers + 2) // to connect is not what is measured
	}
	s, err := heartbeat.Join(b.Context(), db, heartbeat.Config{Name: "a", TTL: patientTTL})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Leave(b.Context())
	cycles := map[string][]func() error{}
	for i := range workers {
		cycles["lock"] = append(cycles["lock"], locking(b, s, fmt.Sprint("lock/a", i)))
		cycles["same statements"] = append(cycles["same statements"], sameStatements(b, s, fmt.Sprint("lock/b", i)))
		cycles["plain pair"] = append(cycles["plain pair"], plainPair(b, s, fmt.Sprint("lock/c", i)))
	}
	spent, done := map[string]time.Duration{}, 0
	for b.Loop() {
		for _, rival := range rivalsOf {
			began := time.Now()
			atOnce(b, cycles[rival])
			spent[rival] += time.Since(began)
		}
		done += workers * inARow
	}
	b.ReportMetric(0, "ns/op") // of all three together: it says nothing
	b.ReportMetric(float64(done)/spent["lock"].Seconds(), "locks/s")
	b.ReportMetric(spent["same statements"].Seconds()/spent["lock"].Seconds(), "of-same-statements")
	b.ReportMetric(spent["plain pair"].Seconds()/spent["lock"].Seconds(), "of-plain-pair")
}

// atOnce has each worker do its cycles.
func atOnce(b *testing.B, workers []func() error) {
	var working sync.WaitGroup
	for _, cycle := range workers {
		working.Go(func() {
			for range inARow {
				if err := cycle(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	working.Wait()
}

func locking(b *testing.B, s *heartbeat.Session, name string) (cycle func() error) {
	return func() error {
		h, err := Acquire(b.Context(), s, Want{Name: name})
		if err != nil {
			return err
		}
		return h.Release(b.Context())
	}
}

// sameStatements are those of locking, by database/sql alone.
func sameStatements(b *testing.B, s *heartbeat.Session, name string) (cycle func() error) {
	k := of(s)
	return pair(b, s, name, stmtGrant, stmtRelease+andNobodyWaits,
		func(id string, token int64) []any {
			return []any{s.ID(), id, token + 1, "", "", name, token, "", "", 0, token + 1, k.History}
		},
		func(id string, token int64) []any { return []any{name, id, token, name} })
}

// plainPair is what somebody might write who thinks of nothing else than the token.
func plainPair(b *testing.B, s *heartbeat.Session, name string) (cycle func() error) {
	return pair(b, s, name,
		`update coordd_leases set holder = ?, grant_id = ?, token = ? where name = ? and token = ?`,
		`update coordd_leases set holder = null, grant_id = null where name = ? and grant_id = ? and token = ?`,
		func(id string, token int64) []any { return []any{s.ID(), id, token + 1, name, token} },
		func(id string, token int64) []any { return []any{name, id, token} })
}

// pair is a cycle of two statements, of which each changes the one row.
func pair(b *testing.B, s *heartbeat.Session, name, take, give string, taking, giving func(id string, token int64) []any) (cycle func() error) {
	b.Helper()
	db := of(s).DB
	var token int64
	if _, err := db.Exec(b.Context(), stmtBegin, name); err != nil {
		b.Fatal(err)
	}
	if err := db.Get(b.Context(), []any{&token}, `select token from coordd_leases where name = ?`, name); err != nil {
		b.Fatal(err)
	}
	take, err := db.Text(b.Context(), take)
	if err != nil {
		b.Fatal(err)
	}
	give, err = db.Text(b.Context(), give)
	if err != nil {
		b.Fatal(err)
	}
	change := func(stmt string, args []any) error {
		result, err := db.Pool().ExecContext(b.Context(), stmt, args...)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err == nil && n != 1 {
			err = fmt.Errorf("%s: got %d rows, want 1", stmt, n)
		}
		return err
	}
	return func() error {
		id := uuid.NewString()
		if err := change(take, taking(id, token)); err != nil {
			return err
		}
		token++
		return change(give, giving(id, token))
	}
}
