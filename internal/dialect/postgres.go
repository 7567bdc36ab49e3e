package dialect

import (
	"database/sql"
	"errors"
	"strings"
	"time"
)

// Postgres is PostgreSQL 12 or newer.
var Postgres = &Dialect{
	Name:      "PostgreSQL",
	Isolation: sql.LevelReadCommitted,
	Bounds: func(d time.Duration) map[string]string {
		return map[string]string{
			"statement_timeout":                   milliseconds(d),
			"lock_timeout":                        milliseconds(d * 3 / 4),
			"idle_in_transaction_session_timeout": milliseconds(2 * d),
		}
	},
	EndIdle:     "select set_config('idle_in_transaction_session_timeout', '5s', true)",
	WakeUp:      "select pg_notify('coordd', ?)",
	Unreachable: checkServer,
	ReadOnly:    usePrimary,
	fragments: strings.NewReplacer(
		"{now}", "(extract(epoch from clock_timestamp())*1000000)::bigint",
		// A standby that takes over begins a new timeline; another cluster has another identifier.
		"{history}", "(select system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) from pg_control_system())",
		"{share}", "for share",
		"{idle at most}", "set_config('idle_in_transaction_session_timeout', ?, true)",
		"{or keep token}", "on conflict do nothing",
		"{or keep next_ticket}", "on conflict do nothing",
		"{or keep plan_version}", "on conflict do nothing",
		"{or keep slot}", "on conflict do nothing",
		"{or keep seen}", "on conflict do nothing",
	),
	numbered: true,
	class:    postgresClass,
}

// postgresClass reads the SQLSTATE.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
func postgresClass(err error) Class {
	var coded interface{ SQLState() string } // pgconn.PgError, without linking pgx
	if !errors.As(err, &coded) {
		return Other
	}
	switch state := coded.SQLState(); state {
	case "40001", "40P01", "55P03": // serialization, deadlock, lock_timeout
		return Transient
	case "57014", "25P03": // statement_timeout, idle_in_transaction_session_timeout
		return Slow
	case "28000", "28P01":
		return Denied
	case "3D000":
		return NoDatabase
	case "25006", "55000": // read only transaction; asked a standby where its log stands
		return ReadOnly
	case "42P01", "42703", "3F000":
		return NoTable
	case "42501":
		return Forbidden
	case "53300", "57P01", "57P02", "57P03": // too many connections, shutting down, starting up
		return Unreachable
	default:
		if strings.HasPrefix(state, "08") {
			return Unreachable
		}
		return Other
	}
}
