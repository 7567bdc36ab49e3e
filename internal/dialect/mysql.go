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
var MySQL = mysqlFamily("MySQL", func(d time.Duration) (name, value string) {
	return "max_execution_time", milliseconds(d) // of a SELECT only: MySQL has no more
})

// MariaDB is MariaDB 10.5 or newer.
var MariaDB = mysqlFamily("MariaDB", func(d time.Duration) (name, value string) {
	return "max_statement_time", strconv.FormatFloat(d.Seconds(), 'f', 3, 64)
})

// MySQLVersion asks a server of the MySQL family what it is.
const MySQLVersion = `select version(), @@autocommit`

// OfMySQL tells the two apart by the answer to MySQLVersion, and refuses
// connections on which a statement would not commit.
func OfMySQL(version string, autocommit bool) (*Dialect, error) {
	if !autocommit {
		return nil, fmt.Errorf("autocommit is off on %s: a beat would never commit; set autocommit=1 for coordd's connections", version)
	}
	if strings.Contains(version, "MariaDB") {
		return MariaDB, nil
	}
	return MySQL, nil
}

func mysqlFamily(name string, limit func(time.Duration) (name, value string)) *Dialect {
	return &Dialect{
		Name:      name,
		Isolation: sql.LevelReadCommitted,
		Bounds: func(d time.Duration) map[string]string {
			setting, value := limit(d)
			return map[string]string{
				setting:                    value,
				"innodb_lock_wait_timeout": strconv.Itoa(max(1, int(d/time.Second))), // whole seconds
			}
		},
		Unreachable: checkServer,
		ReadOnly:    usePrimary,
		fragments: strings.NewReplacer(
			"{now}", "timestampdiff(microsecond, '1970-01-01', utc_timestamp(6))",
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
