package dialect

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/go-sql-driver/mysql"
)

func TestTextNumbersArgumentsWherePostgresWantsIt(t *testing.T) {
	const stmt = `update t set a = ?, at = {now} where b = ? and c = ?`
	for d, want := range map[*Dialect]string{
		Postgres: `update t set a = $1, at = (extract(epoch from clock_timestamp())*1000000)::bigint where b = $2 and c = $3`,
		MySQL:    `update t set a = ?, at = timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) where b = ? and c = ?`,
		MariaDB:  `update t set a = ?, at = timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) where b = ? and c = ?`,
		SQLite:   `update t set a = ?, at = cast(unixepoch('subsec')*1000000 as integer) where b = ? and c = ?`,
	} {
		if got := d.Text(stmt); got != want {
			t.Errorf("%s: got %s, want %s", d.Name, got, want)
		}
	}
}

func TestTheServerSaysWhichOfTheFamilyItIs(t *testing.T) {
	for _, test := range []struct {
		version, wsrep string
		want           *Dialect
	}{
		{"8.4.3", "", MySQL}, {"8.0.36-0ubuntu0.22.04.1", "", MySQL}, {"9.1.0-commercial", "", MySQL},
		{"10.11.9-MariaDB-0+deb12u1", "OFF", MariaDB}, {"5.5.5-10.6.19-MariaDB-log", "", MariaDB},
		{"10.11.9-MariaDB-0+deb12u1", "ON", Galera},
	} {
		if got, err := OfMySQL(test.version, true, test.wsrep); got != test.want || err != nil {
			t.Errorf("%s: got %v and %v, want %s", test.version, got, err, test.want.Name)
		}
	}
	if _, err := OfMySQL("8.4.3", false, ""); !errors.Is(err, ErrAutocommit) {
		t.Errorf("autocommit off: got %v, want %v", err, ErrAutocommit)
	}
}

type state string

func (s state) Error() string    { return string(s) }
func (s state) SQLState() string { return string(s) }

type code int

func (c code) Error() string { return fmt.Sprintf("code %d", int(c)) }
func (c code) Code() int     { return int(c) }

func number(n uint16) error { return &mysql.MySQLError{Number: n} }

func TestErrorsAreToldApartByCode(t *testing.T) {
	for _, test := range []struct {
		dialect *Dialect
		err     error
		want    Class
	}{
		{Postgres, state("40001"), Transient},
		{Postgres, state("40P01"), Transient},
		{Postgres, state("55P03"), Transient},
		{Postgres, state("57014"), Slow},
		{Postgres, state("57P01"), Unreachable},
		{Postgres, state("08006"), Unreachable},
		{Postgres, state("28P01"), Denied},
		{Postgres, state("3D000"), NoDatabase},
		{Postgres, state("25006"), ReadOnly},
		{Postgres, state("42P01"), NoTable},
		{Postgres, state("42501"), Forbidden},
		{Postgres, state("23505"), Other},
		{MySQL, number(1213), Transient},
		{MySQL, number(1205), Transient},
		{MariaDB, number(1020), Transient},
		{MariaDB, number(1969), Slow},
		{MySQL, number(3024), Slow},
		{MySQL, number(1045), Denied},
		{MySQL, number(1049), NoDatabase},
		{MySQL, number(1290), ReadOnly},
		{MySQL, number(1836), ReadOnly},
		{MySQL, number(1146), NoTable},
		{MySQL, number(1142), Forbidden},
		{MySQL, number(1040), Unreachable},
		{MySQL, mysql.ErrInvalidConn, Unreachable},
		{MySQL, number(1062), Other},
		{SQLite, code(5), Transient},
		{SQLite, code(5 | 2<<8), Transient}, // BUSY_SNAPSHOT
		{SQLite, code(6), Transient},
		{SQLite, code(8), ReadOnly},
		{SQLite, code(14), Unreachable},
		{SQLite, code(19), Other},
		{Postgres, context.DeadlineExceeded, Slow},
		{MySQL, driver.ErrBadConn, Unreachable},
		{SQLite, io.ErrUnexpectedEOF, Unreachable},
		{Postgres, &net.OpError{Op: "dial", Err: errors.New("refused")}, Unreachable},
		{Postgres, context.Canceled, Other},
		{Postgres, errors.New("40001"), Other},
	} {
		if got := test.dialect.Class(fmt.Errorf("wrapped: %w", test.err)); got != test.want {
			t.Errorf("%s %v: got %d, want %d", test.dialect.Name, test.err, got, test.want)
		}
	}
}
