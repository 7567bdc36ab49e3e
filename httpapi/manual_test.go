package httpapi

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestTheManualHasEveryPathAndCode(t *testing.T) {
	b, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	for _, m := range meanings {
		if !strings.Contains(manual, "`"+m.Code+"`") {
			t.Errorf("docs/http.md lacks the code %s", m.Code)
		}
	}
	var doc struct{ Paths map[string]any }
	v31, _ := OpenAPI("devel")
	if err := json.Unmarshal(v31, &doc); err != nil {
		t.Fatal(err)
	}
	for path := range doc.Paths {
		of := "scheduler"
		if strings.HasPrefix(path, "/v1/locks") {
			of = "nightly-report"
		}
		path = strings.NewReplacer("{id}", "app-7", "{name}", of, "{uuid}", "$UUID", "{group}", "monitors", "{key}", "orders", "{stream}", "6f1c...").Replace(path)
		if example := "http://127.0.0.1:7400" + path; !strings.Contains(manual, example) {
			t.Errorf("docs/http.md has no example of %s", example)
		}
	}
}
