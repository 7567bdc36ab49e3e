package dsn

import (
	"net/url"
	"strings"
	"testing"
)

func TestDSNsAreShownWithoutTheirPassword(t *testing.T) {
	for in, want := range map[string]string{
		"postgres://app:secret@db:5432/x?sslmode=require": "postgres://app@db:5432/x",
		"postgresql://app:s%40cret@db/x":                  "postgres://app@db/x",
		"postgres://db/x?user=app&password=secret":        "postgres://db/x",
		"mysql://app:secret@db:3307/x":                    "mysql://app@db:3307/x",
		"mariadb://app:secret@db/x?tls=true":              "mysql://app@db:3306/x",
		"mysql://db/x":                                    "mysql://db:3306/x",
		"app:secret@tcp(db:3306)/x?parseTime=true":        "mysql://app@db:3306/x",
		"app@secret@tcp(db:3306)/x":                       "mysql://db:3306/x",
		"app:se@cret/@tcp([::1]:3306)/x":                  "mysql://app@[::1]:3306/x",
		"app:secret@unix(/run/mysqld.sock)/x":             "mysql://app@/run/mysqld.sock/x",
		"sqlite:coordd.db":                                "sqlite:coordd.db",
		"sqlite:///srv/coordd.db":                         "sqlite:/srv/coordd.db",
		"sqlite:/srv/a b.db":                              "sqlite:/srv/a b.db",
	} {
		target, err := Parse(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := target.String(); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestAURLMeansWhatItsPartsSay(t *testing.T) {
	target, err := Parse("mysql://a%40b:p%2F%3F%23@db/x?charset=utf8mb4")
	if err != nil {
		t.Fatal(err)
	}
	if c := target.mysql; c.User != "a@b" || c.Passwd != "p/?#" || c.Addr != "db:3306" || c.DBName != "x" {
		t.Fatalf("got %+v", c)
	}
}

func TestLocalMeansThisMachine(t *testing.T) {
	for in, want := range map[string]bool{
		"postgres://app@127.0.0.1/x":             true,
		"postgres://app@[::1]/x":                 true,
		"postgres://app@localhost/x":             true,
		"postgres:///x?host=/var/run/postgresql": true,
		"postgres://app@localhost,db/x":          false,
		"postgres://app@10.0.0.7/x":              false,
		"postgres://app@localhost.example.com/x": false,
		"mysql://app@127.0.0.2:3307/x":           true,
		"app@unix(/run/mysqld.sock)/x":           true,
		"mysql://app@db/x":                       false,
		"sqlite:coordd.db":                       true,
	} {
		target, err := Parse(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := target.Local(); got != want {
			t.Errorf("%s: got %v, want %v", in, got, want)
		}
	}
}

// Whatever stands in a password, neither an error nor the shown form repeats it.
func FuzzParseKeepsPasswords(f *testing.F) {
	for _, s := range []string{"", "%", "%zz", "/", "@", ":", "?", "#", "[", " ", "\n", "@/", ")/", "://", "\\", "?x=@"} {
		f.Add("postgres", s)
		f.Add("mysql", s)
		f.Add("", s)
	}
	f.Fuzz(func(t *testing.T, scheme, odd string) {
		const secret = "QxZjW7"
		password := secret + odd + secret
		in := scheme + "://app:" + password + "@db:3306/x"
		if scheme == "" {
			in = "app:" + password + "@tcp(db:3306)/x"
		}
		target, err := Parse(in)
		shown := ""
		if err != nil {
			shown = err.Error()
		} else if target.kind != "sqlite" {
			shown = target.String()
		}
		if strings.Contains(shown, secret) || strings.Contains(shown, url.QueryEscape(secret)) {
			t.Fatalf("%q: shows the password: %s", in, shown)
		}
	})
}
