package render

import (
	"strings"
	"testing"
)

type thing struct {
	Name string `json:"name"`
	Size int    `json:"size"`
}

var columns = []Column[thing]{
	{Title: "NAME", Cell: func(t thing) string { return t.Name }},
	{Title: "SIZE", Wide: true, Cell: func(thing) string { return "big" }},
}

func TestEachFormat(t *testing.T) {
	for format, want := range map[string]string{
		"table": "NAME\na\nlonger\n",
		"wide":  "NAME    SIZE\na       big\nlonger  big\n",
		"json":  "[\n  {\n    \"name\": \"a\",\n    \"size\": 1\n  },\n  {\n    \"name\": \"longer\",\n    \"size\": 2\n  }\n]\n",
		"jsonl": "{\"name\":\"a\",\"size\":1}\n{\"name\":\"longer\",\"size\":2}\n",
		"yaml":  "- name: a\n  size: 1\n- name: longer\n  size: 2\n",
		"name":  "a\nlonger\n",
	} {
		if err := CheckFormat(format); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := Write(&b, format, []thing{{"a", 1}, {"longer", 2}}, columns); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, b.String(), want)
		}
	}
	if err := CheckFormat("xml"); err == nil {
		t.Error("xml: got no error, want one")
	}
}
