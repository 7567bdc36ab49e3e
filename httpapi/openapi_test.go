package httpapi_test

import (
	"encoding/json"
	"flag"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

var update = flag.Bool("update", false, "rewrite testdata/openapi.json")

// described is as much of a description as is looked at here.
type described struct {
	OpenAPI string
	Info    struct{ Version string }
	Paths   map[string]map[string]struct{ OperationID string }
}

func describedBy(t *testing.T, b []byte) (d described) {
	t.Helper()
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The file is what clients are made from, so it changes where somebody sees it.
func TestTheDescriptionIsTheCommittedOne(t *testing.T) {
	got, _ := httpapi.OpenAPI("devel")
	const file = "testdata/openapi.json"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Fatalf("the API is not the one that %s describes: run `make golden` and look at the difference", file)
	}
}

func TestTheDescriptionIsServed(t *testing.T) {
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), nobody)
	for path, version := range map[string]string{"/openapi.json": "3.1", "/openapi-3.0.json": "3.0.3"} {
		a := d.get(path).wantsStatus(t, 200)
		if got := describedBy(t, []byte(a.body)); !strings.HasPrefix(got.OpenAPI, version) || got.Info.Version != "test" || a.header.Get("Content-Type") != "application/openapi+json" {
			t.Fatalf("%s: got %+v", path, got)
		}
		for _, ref := range strings.Split(a.body, `"#/components/schemas/`)[1:] {
			if name, _, _ := strings.Cut(ref, `"`); !strings.Contains(a.body, `"`+name+`":`) {
				t.Errorf("%s refers to %s and does not have it", path, name)
			}
		}
		for _, foreign := range []string{"ErrorModel", "$schema"} {
			if strings.Contains(a.body, foreign) {
				t.Errorf("%s has %s", path, foreign)
			}
		}
	}
}

// someUUID is a client's, that holds nothing.
const someUUID = "6c1d2b9e-7f5a-4a58-9a0e-2b4f0d3c8e11"

// inPath is what stands in the paths of operations. The stream of a group that is there would go on
// for ever.
var inPath = strings.NewReplacer("{id}", "app-7", "{name}", "x", "{uuid}", someUUID, "{group}/stream", "none/stream", "{group}", "g", "{key}", "k")

// operations calls do with each operation that is described, and with all else that there is.
func operations(t *testing.T, do func(method, path string)) {
	t.Helper()
	doc, _ := httpapi.OpenAPI("devel")
	paths := describedBy(t, doc).Paths
	for _, path := range slices.Sorted(maps.Keys(paths)) { // what is done to members comes last but for what only reads
		for method := range paths[path] {
			do(strings.ToUpper(method), inPath.Replace(path))
		}
	}
	for _, path := range []string{"/metrics", "/readyz?verbose", "/openapi.json", "/openapi-3.0.json", "/debug/pprof/", "/nothing"} {
		do(http.MethodGet, path)
	}
}
