package dbtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Bouncer is a PgBouncer that runs for as long as a test.
type Bouncer struct {
	DSN   string       // leads through it
	Ended atomic.Int32 // how often it has ended by itself
}

// PgBouncer starts a PgBouncer in transaction mode before a schema that PostgresSchema made. It ends
// with the test; one that ends before is started again, as systemd would (1.18 may end when a statement
// is cancelled: https://github.com/pgbouncer/pgbouncer/issues/822). Where the program is missing the
// test is skipped, or fails where CI is set.
func PgBouncer(tb testing.TB, dsn string) *Bouncer {
	tb.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/pgbouncer") // Debian's
	}
	if err != nil {
		stopWithout(tb, fmt.Errorf("PgBouncer: %w: %w\nrun scripts/testdeps, or `apt-get install pgbouncer`", errNone, err))
	}
	port, err := freePort()
	if err != nil {
		tb.Fatal(err)
	}
	through := with(tb, dsn, func(u *url.URL) {
		u.User = url.User(u.User.Username())
		u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		u.RawQuery = "sslmode=disable" // it refuses a search_path
	})
	settings, log := bouncerSettings(tb, dsn, port), new(bytes.Buffer)
	bouncer, err := startBouncer(program, settings, log)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), readyWithin)
	defer cancel()
	err = awaitReady(ctx, func(ctx context.Context) error {
		if !bouncer.alive() {
			return errEnded
		}
		return ping(ctx, through)
	})
	if err != nil {
		bouncer.kill() // nobody writes to its log any more
		tb.Fatalf("dbtest: PgBouncer: %v; the end of its log:\n%s", err, lastLines(log.String()))
	}
	b := &Bouncer{DSN: through}
	var watching sync.WaitGroup
	over := make(chan struct{})
	watching.Go(func() {
		for err == nil {
			select {
			case <-over:
				bouncer.kill()
				return
			case <-bouncer.gone:
				b.Ended.Add(1)
				tb.Logf("dbtest: PgBouncer has ended: %v; the end of its log:\n%s", bouncer.err, lastLines(log.String()))
				log = new(bytes.Buffer)
				bouncer, err = startBouncer(program, settings, log)
			}
		}
		tb.Errorf("dbtest: PgBouncer cannot be started again: %v", err)
	})
	tb.Cleanup(func() { close(over); watching.Wait() })
	return b
}

// bouncerSettings has it let everybody in, log in to the server as the DSN says, and choose the schema
// itself, as a client in transaction mode can not.
func bouncerSettings(tb testing.TB, dsn string, port int) string {
	tb.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	password, _ := u.User.Password()
	return fmt.Sprintf(`[databases]
* = host=%s port=%s user=%s password=%s connect_query='set search_path = %s'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
`, u.Hostname(), u.Port(), u.User.Username(), password, u.Query().Get("search_path"), port)
}

// startBouncer hands the settings over in a file that has no name any more, as they hold a password.
func startBouncer(program, settings string, log *bytes.Buffer) (*child, error) {
	account, err := unprivileged(postgresProduct.accounts)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "coordd-pgbouncer-")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	_, err = file.WriteString(settings)
	if account != nil {
		err = errors.Join(err, file.Chown(int(account.Uid), int(account.Gid)))
	}
	if err := errors.Join(err, os.Remove(file.Name())); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(thisRun.context(), program, "/dev/fd/3")
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes(account, syscall.SIGKILL)
	return spawn(cmd)
}
