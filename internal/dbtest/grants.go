package dbtest

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/coordd/coordd/migrations"
)

// grantsVariable has every test run as a user to whom was granted what `coordd migrate grants` prints,
// and no more: PostgresSchema and MySQLSchema return such a user's DSN, and Migrated migrates as
// administrator, as a DBA would.
const grantsVariable = "COORDD_TEST_GRANTS"

func leastPrivileges() bool {
	on, _ := strconv.ParseBool(os.Getenv(grantsVariable))
	return on
}

// AsAdministrator skips a test, where tests have the least privileges, that does what no user of
// coordd's does: it makes tables, or plants what coordd never writes.
func AsAdministrator(t testing.TB) {
	t.Helper()
	if leastPrivileges() {
		t.Skip("needs more than the least privileges, which " + grantsVariable + " asks for")
	}
}

// poorPostgres makes a user who may look into a schema and no more, and returns the DSN as that user's.
func poorPostgres(t testing.TB, admin, dsn, schema string) string {
	t.Helper()
	password := rand.Text()
	create(t, admin, fmt.Sprintf(`create role %s login password '%s'`, schema, password), `drop role `+schema)
	create(t, admin, fmt.Sprintf(`grant usage on schema %s to %[1]s`, schema), `drop owned by `+schema)
	return with(t, dsn, func(u *url.URL) { u.User = url.UserPassword(schema, password) })
}

// poorMySQL is poorPostgres on a database. MySQL hides from a user without grants even that a table is
// missing, so its grants come before the tables, which takes the privilege to create them for a moment.
func poorMySQL(t testing.TB, admin, dsn, database string) string {
	t.Helper()
	user, password := database[:32], rand.Text() // no name may be longer
	create(t, admin, fmt.Sprintf(`create user %s identified by '%s'`, user, password), `drop user `+user)
	var grants []string
	for _, need := range migrations.Needs() {
		table := database + "." + need.Table
		grants = append(grants,
			`grant create, `+strings.Join(need.Privileges, ", ")+` on `+table+` to `+user,
			`revoke create on `+table+` from `+user)
	}
	administer(t.Context(), t, admin, grants...)
	return with(t, dsn, func(u *url.URL) { u.User = url.UserPassword(user, password) })
}

// administrators is the DSN by which an administrator reaches a schema of the shared servers, and the
// DSN itself if it is of another database.
func administrators(t testing.TB, dsn string) string {
	t.Helper()
	if !leastPrivileges() {
		return dsn
	}
	shared := map[string]func(testing.TB) string{"postgres": Postgres, "mysql": MySQL}[kindOf(dsn)]
	if shared == nil {
		return dsn
	}
	admin, err := url.Parse(shared(t))
	if err != nil {
		t.Fatal(err)
	}
	return with(t, dsn, func(u *url.URL) {
		if u.Host == admin.Host {
			u.User = admin.User
		}
	})
}

// granted gives the user of a DSN what it needs, once there are tables.
func granted(t testing.TB, admin, dsn string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	script, err := migrations.Grants(kindOf(dsn), u.User.Username())
	if err != nil {
		t.Fatal(err)
	}
	administer(t.Context(), t, admin, strings.Split(strings.TrimSuffix(script, ";\n"), ";\n")...)
}

// kindOf is the product that a DSN is of, as package migrations names it.
func kindOf(dsn string) string {
	kind, _, _ := strings.Cut(dsn, ":")
	return kind
}
