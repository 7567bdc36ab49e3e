package dbtest

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv(holdServer) != "" {
		os.Args = append(os.Args, "-test.run=^TestHoldServer$")
	}
	Main(m)
}

func TestSharedServerAnswers(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) { answers(t, Postgres(t)) })
	t.Run("MySQL", func(t *testing.T) { answers(t, MySQL(t)) })
}

func answers(t *testing.T, dsn string) {
	t.Helper()
	if got := ask(t, Open(t, dsn).Pool(), "select 6 * 7"); got != "42" {
		t.Fatalf("got %v, want 42", got)
	}
}

func TestCallersShareOneServer(t *testing.T) {
	var urls [4]string
	t.Run("callers", func(t *testing.T) {
		for i := range urls {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				urls[i] = Postgres(t)
			})
		}
	})
	for _, got := range urls {
		if got != urls[0] {
			t.Fatalf("got %v, want the same for all", urls)
		}
	}
}

func TestTwoServersRunSideBySide(t *testing.T) {
	one, other := StartPostgres(t, Extra{}), StartPostgres(t, Extra{})
	answers(t, one.DSN())
	answers(t, other.DSN())
	if one.DSN() == other.DSN() {
		t.Fatalf("got %v twice, want two servers", one.layout)
	}
}

func TestCommittedRowsOutlive(t *testing.T) {
	endings := []struct {
		name string
		end  func(*Server) error
	}{
		{"Stop", (*Server).Stop},
		{"Kill", func(s *Server) error { s.Kill(); return nil }},
	}
	for _, p := range []*product{&postgresProduct, &mysqlProduct} {
		t.Run(p.name, func(t *testing.T) {
			s := startServer(t, p, Extra{})
			db := Open(t, s.DSN()).Pool()
			ask(t, db, "create schema kept")
			ask(t, db, "create table kept.rows_of_test (n int)")
			for i, ending := range endings {
				ask(t, db, fmt.Sprintf("insert into kept.rows_of_test values (%d)", i))
				if err := ending.end(s); err != nil {
					t.Fatalf("%s: got %v, want nil", ending.name, err)
				}
				if err := db.Ping(); err == nil {
					t.Fatalf("after %s: the server answers, want an error", ending.name)
				}
				if err := s.Start(); err != nil {
					t.Fatalf("Start after %s: got %v, want nil", ending.name, err)
				}
				if got, want := ask(t, db, "select count(*) from kept.rows_of_test"), fmt.Sprint(i+1); got != want {
					t.Fatalf("after %s: got %v rows, want %v", ending.name, got, want)
				}
			}
		})
	}
}

func TestAPausedServerIsSilent(t *testing.T) {
	for _, p := range []*product{&postgresProduct, &mysqlProduct} {
		t.Run(p.name, func(t *testing.T) {
			s := startServer(t, p, Extra{})
			conn, err := Open(t, s.DSN()).Pool().Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			answer := make(chan error, 1)
			s.Pause()
			go func() {
				_, err := conn.ExecContext(t.Context(), "select 1")
				answer <- err
			}()
			select {
			case err := <-answer:
				t.Fatalf("got %v of a paused server, want nothing", err)
			case <-time.After(200 * time.Millisecond):
			}
			s.Resume()
			if err := <-answer; err != nil {
				t.Fatalf("resumed: got %v, want nil", err)
			}
		})
	}
}

func TestKillEndsABusyBackend(t *testing.T) {
	s := StartPostgres(t, Extra{})
	failed := make(chan error, 1)
	db := Open(t, s.DSN()).Pool()
	go func() {
		_, err := db.Exec("select count(*) from generate_series(1, 1e12) as busy")
		failed <- err
	}()
	watcher := Open(t, s.DSN()).Pool()
	Eventually(t, "a busy backend", func() bool {
		return ask(t, watcher, "select count(*) from pg_stat_activity where query like '%as busy' and pid <> pg_backend_pid()") == "1"
	})
	s.Kill()
	select {
	case err := <-failed:
		if err == nil {
			t.Fatal("got nil, want the loss of the connection")
		}
	case <-time.After(answerWithin):
		t.Fatal("the query goes on though its server was killed")
	}
}

func TestExtraReachesTheServer(t *testing.T) {
	s := StartMySQL(t, Extra{Env: []string{"TZ=XYZ-9"}, Args: []string{"--max-connections=37"}})
	if got, want := ask(t, Open(t, s.DSN()).Pool(), "select concat(@@system_time_zone, @@max_connections)"), "XYZ37"; got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestFailedStartQuotesTheLog(t *testing.T) {
	s := StartPostgres(t, Extra{})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s.extra.Args = []string{"-c", "no_such_setting=1"}
	if err := s.Start(); err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Fatalf("got %v, want the server's complaint about no_such_setting", err)
	}
}

func TestUnreachableServerIsNamedWithoutItsPassword(t *testing.T) {
	for _, c := range []struct {
		product *product
		dsn     string
	}{
		{&postgresProduct, "postgres://someone:hunter2@127.0.0.1:1/postgres?sslmode=disable"},
		{&postgresProduct, "postgres://someone@127.0.0.1:1/postgres?password=hunter2&sslmode=disable"},
		{&postgresProduct, "postgres://someone:hunter2%zz@127.0.0.1:1/postgres"},
		{&postgresProduct, "host=127.0.0.1 port=1 password=hunter2"},
		{&mysqlProduct, "mysql://someone:hunter2@127.0.0.1:1/"},
		{&mysqlProduct, "mysql://someone:hunter2@127.0.0.1:1/?no_such=parameter"},
		{&mysqlProduct, "mysql://someone:hunter2%zz@127.0.0.1:1/"},
		{&mysqlProduct, "someone:hunter2@tcp(127.0.0.1:1)/"},
	} {
		t.Setenv(c.product.variable, c.dsn)
		_, err := obtain(t.Context(), c.product)
		if err == nil || !strings.Contains(err.Error(), c.product.variable) {
			t.Fatalf("%s: got %v, want an error that names %s", c.dsn, err, c.product.variable)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Fatalf("the error shows the password: %v", err)
		}
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	err := postgresProduct.missing(errors.New("no initdb"))
	if !errors.Is(err, errNone) {
		t.Fatalf("got %v, want errNone, upon which a test may be skipped", err)
	}
	for _, want := range []string{"no initdb", "scripts/testdeps", "apt-get install postgresql", "COORDD_TEST_POSTGRES="} {
		if !strings.Contains(err.Error(), want) {
			t.Fatalf("got %v, want it to say %q", err, want)
		}
	}
}

// holdServer makes the test binary, when it runs itself, start one server and wait for its end.
const holdServer = "COORDD_DBTEST_HOLD_SERVER"

func TestHoldServer(t *testing.T) {
	if os.Getenv(holdServer) == "" {
		t.Skip("is a part of TestServerEndsWithTheTestBinary")
	}
	fmt.Println("server:", StartPostgres(t, Extra{}).DSN())
	select {}
}

func TestServerEndsWithTheTestBinary(t *testing.T) {
	if _, err := postgresProduct.find(); err != nil {
		stopWithout(t, postgresProduct.missing(err))
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := t.TempDir()
			binary, dsn := startHolder(t, dir)
			binary.Process.Signal(sig)
			binary.Wait()
			Eventually(t, "the end of the server", func() bool { return ping(t.Context(), dsn) != nil })
			t.Setenv("TMPDIR", dir)
			Eventually(t, "its directory gone", func() bool {
				if sig == syscall.SIGKILL {
					removeAbandoned() // as the next run does
				}
				left, err := os.ReadDir(dir)
				return err == nil && len(left) == 0
			})
		})
	}
}

// startHolder runs TestHoldServer in a process of its own until its server answers.
func startHolder(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	// The server runs as another user if we are root, and t.TempDir is in a directory that is ours alone.
	if err := os.Chmod(dir+"/..", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdServer+"=1", "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if dsn, ok := strings.CutPrefix(lines.Text(), "server: "); ok {
			return cmd, dsn
		}
	}
	t.Fatal("the process ended without a server")
	return nil, ""
}

// ask returns the first column of the first row of the answer, or "" where there is none.
func ask(t *testing.T, db *sql.DB, query string) string {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var answer string
	if rows.Next() {
		if err := rows.Scan(&answer); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}
