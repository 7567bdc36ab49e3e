package name

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "app-7", "Ä b", "名前", strings.Repeat("x", 200)} {
		if err := Check("name", good); err != nil {
			t.Errorf("%q: got %v, want none", good, err)
		}
	}
	for bad, want := range map[string]string{
		"":                         "empty",
		strings.Repeat("x", 201):   "201 bytes",
		"a ":                       "space",
		"\u00a0a":                  "space",
		"a\tb":                     "control",
		"a\x7f":                    "control",
		"\xff":                     "UTF-8",
		strings.Repeat("ä", 20000): "40000 bytes",
	} {
		err := Check("name", bad)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("%.20q: got %v, want %q, in short", bad, err, want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("app-7")
	f.Add("a\x00b")
	f.Add(strings.Repeat("ä", 120))
	f.Fuzz(func(t *testing.T, s string) {
		err := Check("name", s)
		if err == nil && (s == "" || len(s) > MaxBytes || !utf8.ValidString(s) || strings.TrimSpace(s) != s) {
			t.Fatalf("%q: got no error", s)
		}
		if err != nil && !utf8.ValidString(err.Error()) {
			t.Fatalf("%q: the error is not UTF-8", s)
		}
	})
}
