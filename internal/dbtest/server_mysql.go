package dbtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

var mysqlProduct = product{
	name:          "MySQL",
	variable:      "COORDD_TEST_MYSQL",
	example:       "mysql://user:password@host:3306/",
	imageVariable: "COORDD_TEST_MYSQL_IMAGE",
	image:         "mysql:8.4",
	debian:        "mariadb-server",
	accounts:      []string{"mysql", "nobody"},
	port:          "3306/tcp",
	passwords:     []string{"MYSQL_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD"},
	// 2 hands each commit to the kernel, so it survives SIGKILL, though not a power failure; 0 would not.
	tuning: []string{
		"--innodb-flush-log-at-trx-commit=2",
		"--innodb-doublewrite=0",
		"--innodb-use-native-aio=0", // the kernel's supply is small, and several servers would share it
		"--innodb-buffer-pool-size=64M",
		"--sync-binlog=0",
		"--max-connections=300",
		"--skip-name-resolve",
		"--loose-mysqlx=OFF", // it would fight for one port with every other MySQL of the machine
	},
	adminURL: func(password, address string) string {
		return fmt.Sprintf("mysql://root:%s@%s/", password, address)
	},
	find: findMySQL,
}

type mysqlPrograms struct {
	server  string
	install string // mariadb-install-db; empty for MySQL, which needs no help
}

// findMySQL prefers MariaDB, which is what Debian calls the default MySQL.
func findMySQL() (programs, error) {
	server, serverErr := lookUp("mariadbd")
	install, installErr := lookUp("mariadb-install-db")
	if serverErr == nil && installErr == nil {
		return mysqlPrograms{server, install}, nil
	}
	server, err := lookUp("mysqld")
	if err != nil {
		return nil, errors.New("no directory of PATH, /usr/sbin or /usr/local holds mariadbd with mariadb-install-db, or mysqld")
	}
	version, err := exec.Command(server, "--version").Output()
	if err != nil || strings.Contains(string(version), "MariaDB") {
		return nil, fmt.Errorf("%s is not a MySQL that runs, nor has it a mariadb-install-db (%s, %w)", server, version, err)
	}
	return mysqlPrograms{server: server}, nil
}

// lookUp finds a program in PATH or where servers are kept out of the PATH of ordinary users.
func lookUp(program string) (string, error) {
	for _, dir := range []string{"", "/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin", "/usr/local/mysql/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", os.ErrNotExist
}

// secret is a script for each start of the server: it alone can set a password without a connection.
func (p mysqlPrograms) secret(password string) string {
	return fmt.Sprintf(`create user if not exists root@'127.0.0.1';
alter user root@'127.0.0.1' identified by '%s';
grant all on *.* to root@'127.0.0.1' with grant option;
`, password)
}

func (p mysqlPrograms) initialize(l layout) []string {
	if p.install == "" {
		return []string{p.server, "--no-defaults", "--initialize-insecure", "--datadir=" + l.data, p.tmpdir(l), "--innodb-use-native-aio=0"}
	}
	return []string{
		p.install, "--no-defaults", "--datadir=" + l.data, p.tmpdir(l), "--skip-test-db", "--skip-name-resolve",
		"--auth-root-authentication-method=normal", "--innodb-use-native-aio=0",
	}
}

func (p mysqlPrograms) serve(l layout) []string {
	return []string{
		p.server, "--no-defaults", "--datadir=" + l.data, p.tmpdir(l), "--bind-address=127.0.0.1", "--port=" + strconv.Itoa(l.port),
		"--socket=server.sock", // relative to the data directory, as a full path could exceed the kernel's 107 bytes
		"--init-file=" + l.secret,
		"--secure-file-priv=", // the default of Debian's MySQL is a directory that only its package makes
	}
}

// tmpdir is a server's own: one that starts deletes whatever looks like a temporary table of its predecessor.
func (p mysqlPrograms) tmpdir(l layout) string { return "--tmpdir=" + filepath.Dir(l.data) }

func (p mysqlPrograms) tidy(layout) error { return nil }

// signals are an orderly shutdown and none: InnoDB leaves nothing behind outside its directory.
func (p mysqlPrograms) signals() (stop, quit syscall.Signal) {
	return syscall.SIGTERM, syscall.SIGKILL
}
