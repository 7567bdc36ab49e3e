package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

// pages have commands that a script runs, and names that must exist.
var pages = []string{"recipes/locks.md", "recipes/jobs.md", "migration.md"}

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	inBlock  = regexp.MustCompile(`(?m)^(?:[-0-9* ]+ )?((?:coordd|curl) .*?)(?: +#.*)?$`)
	inline   = regexp.MustCompile("`(coordd [a-z]+ [^`\n]+)`")
	inYAML   = regexp.MustCompile(`(?m)command: \[(coordd, .*)\]`)
	goName   = regexp.MustCompile("`((?:coordd|heartbeat|election|lock|events|assign)\\.[A-Z][A-Za-z.]*)`")
	endpoint = regexp.MustCompile("`(GET|PUT|POST|DELETE) (/v1/[^`?]*)[^`]*`[^|]*")
)

// Every command that the recipes show is in a script, and so run on every database.
func TestEveryCommandOfTheRecipesIsRun(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	scripts := ""
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		scripts += string(text)
	}
	for _, name := range pages {
		text, seen := page(t, name), 0
		var commands []string
		for _, found := range append(inBlock.FindAllStringSubmatch(text, -1), inline.FindAllStringSubmatch(text, -1)...) {
			commands = append(commands, found[1])
		}
		for _, found := range inYAML.FindAllStringSubmatch(text, -1) {
			commands = append(commands, strings.ReplaceAll(found[1], ", ", " "))
		}
		for _, command := range commands {
			seen++
			command = strings.NewReplacer(`\%`, "%", "127.0.0.1:7400", "$API").Replace(command)
			if !regexp.MustCompile(`(?m)[ ']` + regexp.QuoteMeta(command) + `'?$`).MatchString(scripts) {
				t.Errorf("docs/%s: no script runs %s", name, command)
			}
		}
		if seen < 2 {
			t.Errorf("docs/%s: got %d commands, want more", name, seen)
		}
	}
}

// exported are the names that a package exports: functions, types with their methods and fields, variables.
func exported(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				of := ""
				if d.Recv != nil {
					receiver := d.Recv.List[0].Type
					if pointer, is := receiver.(*ast.StarExpr); is {
						receiver = pointer.X
					}
					if named, is := receiver.(*ast.Ident); is {
						of = named.Name + "."
					}
				}
				names[of+d.Name.Name] = true
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						names[spec.Name.Name] = true
					case *ast.ValueSpec:
						for _, n := range spec.Names {
							names[n.Name] = true
						}
					}
				}
			}
		}
	}
	return names
}

// What the pages say of coordd's Go and HTTP interfaces exists.
func TestThePagesNameWhatExists(t *testing.T) {
	names := map[string]map[string]bool{"coordd": exported(t, "../..")}
	for _, name := range []string{"heartbeat", "election", "lock", "events", "assign"} {
		names[name] = exported(t, "../../"+name)
	}
	var api struct{ Paths map[string]map[string]any }
	description, _ := httpapi.OpenAPI("devel")
	if err := json.Unmarshal(description, &api); err != nil {
		t.Fatal(err)
	}
	called, asked := 0, 0
	for _, p := range pages {
		text := page(t, p)
		for _, found := range goName.FindAllStringSubmatch(text, -1) {
			called++
			if in, what, _ := strings.Cut(found[1], "."); !names[in][what] {
				t.Errorf("docs/%s: there is no %s", p, found[1])
			}
		}
		for line := range strings.Lines(text) { // of a table the last column is coordd's
			cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "|"), " | ")
			for _, found := range endpoint.FindAllStringSubmatch(cells[len(cells)-1], -1) {
				asked++
				if api.Paths[found[2]][strings.ToLower(found[1])] == nil {
					t.Errorf("docs/%s: there is no %s %s", p, found[1], found[2])
				}
			}
		}
	}
	if called < 40 || asked < 6 {
		t.Errorf("got %d names and %d requests, want more for this to say anything", called, asked)
	}
}

// The program in Python of docs/recipes/jobs.md looks after jobs through a daemon, and ends one that is removed.
func TestTheSidecarOfTheRecipes(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		spec := func(key string) assign.Spec { return assign.Spec{Key: key, Payload: "http://flink:8081/jobs/" + key} }
		if err := assign.Define(t.Context(), db, assign.Group{Name: "monitors"}); err != nil {
			t.Fatal(err)
		}
		if _, err := assign.Add(t.Context(), db, "monitors", spec("clicks"), spec("orders")); err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(page(t, "recipes/jobs.md"), "```python sidecar\n")
		program, _, ended := strings.Cut(rest, "```")
		lib, err := filepath.Abs("../../docs/clients")
		if !ended || err != nil {
			t.Fatal("docs/recipes/jobs.md has no such program", err)
		}
		addr := freeAddress(t)
		start(t, dsn, "run", "--name", "app-7", "--listen", addr)
		python := &process{cmd: exec.Command("python3", "-c", program, "http://"+addr), output: new(output)}
		python.cmd.Env = append(os.Environ(), "PYTHONPATH="+lib, "PYTHONDONTWRITEBYTECODE=1")
		python.cmd.Stdout, python.cmd.Stderr = python.output, python.output
		if err := python.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			python.cmd.Process.Kill()
			python.cmd.Wait()
			if t.Failed() {
				t.Log(python.output)
			}
		})
		monitored := func(key string) int {
			return strings.Count(python.output.String(), "monitor "+key+" http://flink:8081/jobs/"+key+"\n")
		}
		dbtest.Eventually(t, "both jobs looked after", func() bool { return monitored("clicks") > 0 && monitored("orders") > 0 })
		if err := assign.Remove(t.Context(), db, "monitors", "clicks"); err != nil {
			t.Fatal(err)
		}
		dbtest.Eventually(t, "only one job looked after", func() bool {
			clicks, orders := monitored("clicks"), monitored("orders")
			dbtest.Eventually(t, "the other one looked after", func() bool { return monitored("orders") > orders+2 })
			return monitored("clicks") == clicks
		})
	})
}
