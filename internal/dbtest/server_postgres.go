package dbtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

var postgresProduct = product{
	name:          "PostgreSQL",
	variable:      "COORDD_TEST_POSTGRES",
	example:       "postgres://user:password@host:5432/postgres?sslmode=disable",
	imageVariable: "COORDD_TEST_POSTGRES_IMAGE",
	image:         "postgres:17",
	debian:        "postgresql",
	accounts:      []string{"postgres", "nobody"},
	port:          "5432/tcp",
	passwords:     []string{"POSTGRES_PASSWORD"},
	// Without fsync a commit reaches the kernel, so it survives SIGKILL, though not a power failure.
	tuning: []string{
		"-c", "fsync=off",
		"-c", "full_page_writes=off",
		"-c", "max_connections=300",
		"-c", "shared_buffers=32MB",
	},
	adminURL: func(password, address string) string {
		return fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable", password, address)
	},
	find: findPostgres,
}

type postgresPrograms struct{ initdb, postgres string }

// findPostgres prefers PATH to the directories where distributions keep what they do not put there, and
// among these the highest version.
func findPostgres() (programs, error) {
	for _, dir := range append([]string{""}, postgresDirs()...) {
		initdb, err := exec.LookPath(filepath.Join(dir, "initdb"))
		if err != nil {
			continue
		}
		server, err := exec.LookPath(filepath.Join(filepath.Dir(initdb), "postgres"))
		if err != nil {
			continue
		}
		return postgresPrograms{initdb, server}, nil
	}
	return nil, errors.New("no directory of PATH, /usr/lib/postgresql/*/bin or /usr/local holds initdb and postgres")
}

func postgresDirs() []string {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian
		"/usr/pgsql-*/bin",          // the PostgreSQL project's own RPMs
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin",
		"/usr/local/pgsql/bin",
	} {
		found, _ := filepath.Glob(pattern) // fails on a bad pattern only
		slices.SortFunc(found, func(a, b string) int { return majorVersion(b) - majorVersion(a) })
		dirs = append(dirs, found...)
	}
	return dirs
}

// majorVersion is the number in a path such as /usr/lib/postgresql/17/bin.
func majorVersion(dir string) int {
	version, _ := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(dir))
	return version
}

func (p postgresPrograms) secret(password string) string { return password }

func (p postgresPrograms) initialize(l layout) []string {
	return []string{
		p.initdb, "--no-sync", "--pgdata=" + l.data, "--username=postgres",
		"--auth=scram-sha-256", "--pwfile=" + l.secret, "--encoding=UTF8", "--locale=C",
	}
}

func (p postgresPrograms) serve(l layout) []string {
	return []string{
		p.postgres, "-D", l.data, "-h", "127.0.0.1", "-p", strconv.Itoa(l.port),
		"-c", "unix_socket_directories=", // a path in a deep directory could exceed the kernel's 107 bytes
	}
}

// signals are "fast" and "immediate" shutdown; SIGTERM would wait for every client to leave.
func (p postgresPrograms) signals() (stop, quit syscall.Signal) {
	return syscall.SIGINT, syscall.SIGQUIT
}

// tidy removes the System V segment by which PostgreSQL knows that a server of its directory is alive. The kernel
// has few, and a killed server leaves its own to the next start.
func (p postgresPrograms) tidy(l layout) error {
	pidFile, err := os.ReadFile(filepath.Join(l.data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it ended in order
	}
	if err != nil {
		return err
	}
	// The seventh line is the key and the number of the segment; a server that was killed early has not written it.
	lines := strings.Split(string(pidFile), "\n")
	var key, segment int
	if len(lines) < 7 {
		return nil
	}
	if _, err := fmt.Sscan(lines[6], &key, &segment); err != nil {
		return fmt.Errorf("%s: the line of the shared memory: %w", pidFile, err)
	}
	_, err = unix.SysvShmCtl(segment, unix.IPC_RMID, nil)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
		return nil // it is gone already
	}
	return err
}
