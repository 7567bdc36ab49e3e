package dialect

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// MySQL is MySQL 8.0 or newer.
var MySQL = mysqlFamily("MySQL", "@@server_uuid", func(d time.Duration) map[string]string {
	return map[string]string{"max_execution_time": milliseconds(d)} // of a SELECT only: MySQL has no more
})

// MariaDB is MariaDB 10.6.19, 10.11.9, 11.4.3 or newer: these have server_uid.
var MariaDB = mysqlFamily("MariaDB", "@@server_uid", mariadbLimits)

// Galera is MariaDB as a node of a Galera cluster. All its nodes have one history.
var Galera = mysqlFamily("Galera", "(select concat('galera/', variable_value) from information_schema.global_status where variable_name = 'wsrep_cluster_state_uuid')", mariadbLimits)

// mariadbLimits also end a transaction whose process is frozen in it: nobody could change what it has locked, not even declare it dead.
func mariadbLimits(d time.Duration) map[string]string {
	return map[string]string{
		"max_statement_time":       strconv.FormatFloat(d.Seconds(), 'f', 3, 64),
		"idle_transaction_timeout": wholeSeconds(2 * d),
	}
}

func wholeSeconds(d time.Duration) string { return strconv.Itoa(max(1, int(d/time.Second))) }

// MySQLVersion asks a server of the MySQL family what it is. MySQL takes for a comment what
// only MariaDB reads.
const MySQLVersion = `select version(), @@autocommit, coalesce(null /*M!, (
	select variable_value from information_schema.global_variables where variable_name = 'wsrep_on')*/, '')`

// ErrAutocommit says that a statement on these connections would not commit.
var ErrAutocommit = errors.New("autocommit is off")

// OfMySQL tells which it is by the answer to MySQLVersion, and refuses connections on which a
// statement would not commit.
func OfMySQL(version string, autocommit bool, wsrep string) (*Dialect, error) {
	switch {
	case !autocommit:
		return nil, fmt.Errorf("%w on %s: a beat would never commit; set autocommit=1 for coordd's connections", ErrAutocommit, version)
	case wsrep == "ON":
		return Galera, nil
	case strings.Contains(version, "MariaDB"):
		return MariaDB, nil
	}
	return MySQL, nil
}

func mysqlFamily(name, history string, limits func(time.Duration) map[string]string) *Dialect {
	return &Dialect{
		Name:      name,
		Isolation: sql.LevelReadCommitted,
		Bounds: func(d time.Duration) map[string]string {
			bounds := limits(d)
			bounds["innodb_lock_wait_timeout"] = wholeSeconds(d)
			return bounds
		},
		Unreachable: checkServer,
		ReadOnly:    usePrimary,
		fragments: strings.NewReplacer(
			"{now}", "timestampdiff(microsecond, '1970-01-01', utc_timestamp(6))",
			"{history}", history,
			"{share}", "lock in share mode",
			"{idle at most}", "?", // a transaction cannot set it for itself
			"{or keep token}", "on duplicate key update token = token",
			"{or keep next_ticket}", "on duplicate key update next_ticket = next_ticket",
			"{or keep plan_version}", "on duplicate key update plan_version = plan_version",
			"{or keep slot}", "on duplicate key update slot = slot",
			"{or keep seen}", "on duplicate key update seen = seen",
		),
		class: mysqlClass,
	}
}

// mysqlClass reads the error number.
// https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html
// https://mariadb.com/kb/en/mariadb-error-code-reference/
func mysqlClass(err error) Class {
	if errors.Is(err, mysql.ErrInvalidConn) {
		return Unreachable
	}
	var coded *mysql.MySQLError
	if !errors.As(err, &coded) {
		return Other
	}
	switch coded.Number {
	case 1213, 1205, 1020: // deadlock, lock wait timeout, record changed since last read
		return Transient
	case 1969, 3024, 1317: // max_statement_time, max_execution_time, interrupted
		return Slow
	case 1045, 1698:
		return Denied
	case 1049:
		return NoDatabase
	case 1290, 1792, 1836: // read_only, read only transaction, read only mode
		return ReadOnly
	case 1146, 1054: // no such table, no such column
		return NoTable
	case 1044, 1142, 1143, 1227, 1370:
		return Forbidden
	case 1040, 1047, 1053, 1129, 1130, 1203, 1927: // too many connections, Galera not ready, shutting down, blocked, killed
		return Unreachable
	default:
		return Other
	}
}
