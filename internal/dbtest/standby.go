package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/coordd/coordd/internal/dsn"
)

// A Standby is a PostgreSQL server that follows another one, and may take its place. Clients can read from it.
type Standby struct {
	*Server
	primary *Server
	name    string // by which the primary knows it
}

// StartStandby copies a server of StartPostgres and follows it. With synchronous, the primary from now on acknowledges
// a commit only when this standby has it. It ends with the test.
func StartStandby(tb testing.TB, primary *Server, synchronous bool) *Standby {
	tb.Helper()
	name, product, extra := unique(), postgresProduct, primary.extra
	product.find = func() (programs, error) { return findStandby(primary, name) }
	extra.password = primary.password // roles are copied too
	s := &Standby{startServer(tb, &product, extra), primary, name}
	err := s.CatchUp()
	if err == nil && synchronous {
		err = s.synchronize()
	}
	if err != nil {
		tb.Fatalf("dbtest: %v; the end of the standby's log:\n%s", err, s.logFrom(0))
	}
	return s
}

// synchronize returns when the primary acknowledges no commit without the standby any more.
func (s *Standby) synchronize() error {
	return take("make the standby synchronous",
		step{s.primary, `alter system set synchronous_standby_names = '` + s.name + `'`},
		step{s.primary, `select pg_reload_conf()`},
		step{s.primary, s.known(`sync_state = 'sync'`)},
		// Commits begin to wait when the checkpointer has read the setting, which it does before its next checkpoint.
		step{s.primary, `checkpoint`},
	)
}

// known asks the primary about the standby.
func (s *Standby) known(as string) string {
	return `select exists (select from pg_stat_replication where application_name = '` + s.name + `' and ` + as + `)`
}

// CatchUp returns when the standby follows, and shows all that the primary has acknowledged before.
func (s *Standby) CatchUp() error {
	end, err := answer(thisRun.context(), s.primary, `select pg_current_wal_flush_lsn()::text`)
	if err != nil {
		return fmt.Errorf("how far the primary is: %w", err)
	}
	return take("catch up with the primary",
		step{s.primary, s.known(`state = 'streaming'`)},
		step{s.Server, `select pg_last_wal_replay_lsn() >= '` + end + `'`},
	)
}

// Detach ends the replication for good: the standby has all that the primary has acknowledged before, and will have
// nothing that it commits from now on. An asynchronous primary goes on acknowledging what a failover loses; a
// synchronous one acknowledges nothing any more.
func (s *Standby) Detach() error {
	if err := s.CatchUp(); err != nil {
		return err
	}
	return take("detach the standby",
		step{s.Server, `alter system set primary_conninfo = ''`},
		step{s.Server, `select pg_reload_conf()`},
		step{s.Server, `select not exists (select from pg_stat_wal_receiver)`}, // there was one, or it had not caught up
	)
}

// Promote makes the standby a primary, with all that it has received. It does not end the old one.
func (s *Standby) Promote() error {
	return take("promote the standby",
		step{s.Server, `select pg_promote(wait => false)`},
		step{s.Server, `select not pg_is_in_recovery()`},
	)
}

// A step is a statement that is repeated until its answer is not false.
type step struct {
	on   *Server
	stmt string
}

func take(what string, steps ...step) error {
	ctx, cancel := context.WithTimeout(thisRun.context(), readyWithin)
	defer cancel()
	for _, s := range steps {
		var failed error
		late := awaitReady(ctx, func(ctx context.Context) error {
			var got string
			if got, failed = answer(ctx, s.on, s.stmt); got == "false" {
				return errors.New(got)
			}
			return nil
		})
		if err := errors.Join(failed, late); err != nil {
			return fmt.Errorf("%s: %s: %w", what, s.stmt, err)
		}
	}
	return nil
}

// answer is the first column of a statement's first row, or "" without one. It takes a connection of its own, as only a new
// one is sure to know what was reloaded.
func answer(ctx context.Context, from *Server, stmt string) (got string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	target, err := dsn.Parse(from.DSN())
	if err != nil {
		return "", err
	}
	db, err := target.Open(ctx, readyWithin)
	if err != nil {
		return "", err
	}
	defer db.Pool().Close()
	if err = db.Pool().QueryRowContext(ctx, stmt).Scan(&got); errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return got, err
}

// standbyPrograms fill the data directory from the primary.
type standbyPrograms struct {
	postgresPrograms
	baseBackup string
	conninfo   string
}

func findStandby(primary *Server, name string) (programs, error) {
	found, err := findPostgres()
	if err != nil {
		return nil, err
	}
	p := standbyPrograms{postgresPrograms: found.(postgresPrograms)}
	host, port, _ := net.SplitHostPort(primary.Address())
	p.conninfo = fmt.Sprintf("host=%s port=%s user=postgres application_name=%s", host, port, name)
	server, err := filepath.EvalSymlinks(p.postgres) // a link may stand in its directory without the others
	if err != nil {
		return nil, err
	}
	p.baseBackup, err = exec.LookPath(filepath.Join(filepath.Dir(server), "pg_basebackup"))
	return p, err
}

// secret is a password file, whose path pg_basebackup writes into the standby's settings.
func (p standbyPrograms) secret(password string) string { return "*:*:*:postgres:" + password }

func (p standbyPrograms) initialize(l layout) []string {
	return []string{
		p.baseBackup, "--no-sync", "--checkpoint=fast", "--write-recovery-conf", "--pgdata=" + l.data,
		"--dbname=" + p.conninfo + " passfile='" + l.secret + "'",
	}
}

func (p standbyPrograms) serve(l layout) []string {
	return append(p.postgresPrograms.serve(l), "-c", "wal_retrieve_retry_interval=50ms") // a promotion may have to wait so long
}
