package coordd_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/coordd/coordd/"

// picture says what each package may import of the others. Imports point down only.
var picture = map[string][]string{
	"assign":                   {".", "election", "heartbeat", "internal/dialect", "internal/journal", "internal/name"},
	"assign/assigntest":        {"assign"},
	".":                        {"internal/dialect"},
	"heartbeat":                {".", "internal/clock", "internal/journal", "internal/name"},
	"events":                   {".", "internal/journal"},
	"election":                 {".", "heartbeat", "internal/journal", "internal/lease", "internal/name"},
	"lock":                     {".", "heartbeat", "internal/lease", "internal/name"},
	"pglisten":                 {".", "internal/dialect"},
	"coorddtest":               {".", "internal/memdb", "migrations"},
	"migrations":               {".", "internal/journal"},
	"httpapi":                  {".", "assign", "election", "events", "heartbeat", "internal/clock", "internal/journal", "internal/name", "internal/rights", "lock"},
	"cmd/coordd":               {".", "assign", "election", "events", "heartbeat", "httpapi", "internal/child", "internal/client", "internal/clock", "internal/doctor", "internal/dsn", "internal/journal", "internal/load", "internal/render", "lock", "migrations", "pglisten"},
	"internal/client":          {".", "httpapi", "internal/clock", "lock"},
	"internal/clock":           {},
	"internal/clock/clocktest": {},
	"internal/dialect":         {},
	"internal/doctor":          {".", "heartbeat", "internal/dialect", "internal/dsn", "internal/journal", "migrations", "pglisten"},
	"internal/dsn":             {".", "internal/dialect"},
	"internal/journal":         {"."},
	"internal/lease":           {".", "heartbeat", "internal/dialect", "internal/journal"},
	"internal/load":            {"heartbeat"},
	"internal/memdb":           {},
	"internal/name":            {},
	"internal/render":          {},
	"internal/dbtest":          {".", "internal/dsn", "internal/memdb", "migrations"},
	"internal/child":           {"internal/clock"},
	"internal/rights":          {".", "election", "heartbeat", "internal/clock", "internal/lease", "lock"},
}

func goList(t *testing.T, format, what string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", format, what).CombinedOutput()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", what, err, out)
	}
	return strings.Fields(string(out))
}

func TestImportsPointDown(t *testing.T) {
	short := func(path string) string {
		if path == strings.TrimSuffix(module, "/") {
			return "."
		}
		return strings.TrimPrefix(path, module)
	}
	seen := 0
	for _, line := range goList(t, `{{.ImportPath}}:{{join .Imports ","}}`, "./...") {
		path, imports, _ := strings.Cut(line, ":")
		allowed, known := picture[short(path)]
		if !known {
			t.Errorf("%s stands nowhere in the picture", path)
		}
		seen++
		for _, i := range strings.Split(imports, ",") {
			if i != strings.TrimSuffix(module, "/") && !strings.HasPrefix(i, module) {
				continue
			}
			ok := false
			for _, a := range allowed {
				ok = ok || a == short(i)
			}
			if !ok {
				t.Errorf("%s imports %s, which does not stand below it", short(path), short(i))
			}
		}
	}
	if seen != len(picture) {
		t.Errorf("packages: got %d, want the %d of the picture", seen, len(picture))
	}
}

// Whoever imports the library links no database driver but go-sql-driver, for its error
// type, and nothing that only the daemon needs.
func TestTheLibraryIsLight(t *testing.T) {
	for _, library := range []string{"./heartbeat", "./events", "./election", "./lock", "./assign"} {
		deps := goList(t, `{{join .Deps "\n"}}`, library)
		if len(deps) < 50 {
			t.Fatalf("go list told of %d packages only", len(deps))
		}
		for _, d := range deps {
			for _, heavy := range []string{"jackc/pgx", "modernc.org", "pressly/goose", "go-chi/chi", "danielgtaylor/huma", "prometheus", "gopsutil", "spf13", "testcontainers"} {
				if strings.Contains(d, heavy) {
					t.Errorf("%s links %s", library, d)
				}
			}
		}
	}
}

func TestOnlyTheDaemonLinksGopsutil(t *testing.T) {
	for _, line := range goList(t, `{{.ImportPath}}:{{join .Deps ","}}`, "./...") {
		path, deps, _ := strings.Cut(line, ":")
		switch strings.TrimPrefix(path, module) {
		case "cmd/coordd", "internal/load", "internal/dbtest": // the last for its containers
			continue
		}
		if strings.Contains(deps, "gopsutil") {
			t.Errorf("%s links gopsutil", path)
		}
	}
}
