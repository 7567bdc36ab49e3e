package migrations

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Need is what a user has to be granted on one table or view.
type Need struct {
	Table      string
	Privileges []string // as grant takes them
}

// Needs is all that coordd's users need who do not migrate, and no more than they need.
func Needs() []Need {
	read := []string{"select"}
	change := []string{"select", "update"}
	replace := []string{"select", "insert", "delete"}
	all := []string{"select", "insert", "update", "delete"}
	return []Need{
		{"coordd_migrations", read},
		{"coordd_v_members", read},
		{"coordd_v_leaders", read},
		{"coordd_v_locks", read},
		{"coordd_v_jobs", read},
		{"coordd_meta", change},
		{"coordd_members", replace},
		{"coordd_events", replace},
		{"coordd_outbox", replace},
		{"coordd_leases", all},
		{"coordd_queues", all},
		{"coordd_heartbeats", all},
		{"coordd_shared", all},
		{"coordd_waiters", all},
		{"coordd_groups", all},
		{"coordd_group_members", all},
		{"coordd_slots", all},
		{"coordd_jobs", all},
	}
}

// Grants are the statements that give a user what it needs; product is one of Products. A
// MySQL user is a name, or name@host.
func Grants(product, user string) (string, error) {
	if user == "" {
		return "", errors.New("say to which user")
	}
	var statements []string
	grant := func(privileges []string, tables, user string) {
		statements = append(statements, fmt.Sprintf("grant %s on %s to %s;\n", strings.Join(privileges, ", "), tables, user))
	}
	switch product {
	case "postgres":
		for needs := Needs(); len(needs) > 0; {
			var tables []string
			privileges := needs[0].Privileges
			for len(needs) > 0 && slices.Equal(needs[0].Privileges, privileges) {
				tables = append(tables, needs[0].Table)
				needs = needs[1:]
			}
			grant(privileges, strings.Join(tables, ", "), postgresUser(user))
		}
	case "mysql": // takes one table at a time
		for _, need := range Needs() {
			grant(need.Privileges, need.Table, mysqlUser(user))
		}
	case "sqlite":
		return "", errors.New("SQLite has no users: who may write the file and its directory may do everything")
	default:
		return "", errors.New("say for which database: postgres or mysql")
	}
	return strings.Join(statements, ""), nil
}

// plain is a name that needs no quotes.
var plain = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

func postgresUser(user string) string {
	if plain.MatchString(user) {
		return user
	}
	return `"` + strings.ReplaceAll(user, `"`, `""`) + `"`
}

func mysqlUser(user string) string {
	if plain.MatchString(user) {
		return user // from any host
	}
	name, host := user, "%"
	if at := strings.LastIndex(user, "@"); at >= 0 {
		name, host = user[:at], user[at+1:]
	}
	quoted := strings.NewReplacer(`'`, `''`, `\`, `\\`)
	return `'` + quoted.Replace(name) + `'@'` + quoted.Replace(host) + `'`
}
