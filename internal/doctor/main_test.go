package doctor

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/dsn"
	"github.com/coordd/coordd/internal/journal"
	"github.com/coordd/coordd/migrations"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// secret is the password of those who are examined, and appears in no finding.
const secret = "hunter2-canary"

// ward is a migrated database on a server of the test's own, and a user with the least privileges.
type ward struct {
	server *dbtest.Server
	root   *coordd.DB // an administrator, elsewhere on the server
	admin  *coordd.DB // and in the database
	name   string     // of the database and of the user
	dsn    string     // that user's
}

// admit makes a database on a server, named as nothing else there.
func admit(t *testing.T, server *dbtest.Server, name string) *ward {
	t.Helper()
	w := &ward{server: server, root: dbtest.Open(t, server.DSN()), name: name}
	w.exec(t, w.root, `create database `+name)
	product, admin := "mysql", with(t, server.DSN(), func(u *url.URL) { u.Path = "/" + name })
	if strings.HasPrefix(admin, "postgres") {
		product = "postgres"
		w.exec(t, w.root, `create role `+name+` login password '`+secret+`'`)
	} else {
		w.exec(t, w.root, `create user `+name+` identified by '`+secret+`'`)
	}
	w.admin = dbtest.Migrated(t, admin)
	script, err := migrations.Grants(product, name)
	if err != nil {
		t.Fatal(err)
	}
	for stmt := range strings.SplitSeq(strings.TrimSuffix(script, ";\n"), ";\n") {
		w.exec(t, w.admin, stmt)
	}
	w.dsn = with(t, admin, func(u *url.URL) { u.User = url.UserPassword(name, secret) })
	return w
}

func (w *ward) exec(t *testing.T, db *coordd.DB, stmts ...string) {
	t.Helper()
	for _, stmt := range stmts {
		if _, err := db.Pool().ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
}

// open is a transaction of somebody else's, which stays open.
func (w *ward) open(t *testing.T, stmts ...string) {
	t.Helper()
	tx, err := w.admin.Pool().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	for _, stmt := range stmts {
		if _, err := tx.ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
}

func with(t *testing.T, s string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

// setting adds a parameter to a DSN.
func setting(t *testing.T, s, name, value string) string {
	t.Helper()
	return with(t, s, func(u *url.URL) {
		query := u.Query()
		query.Set(name, value)
		u.RawQuery = query.Encode()
	})
}

// examined are the findings on a database; none holds the password. A busy machine has more time.
func examined(t *testing.T, s string, cfg Config) []Finding {
	t.Helper()
	target, err := dsn.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	cfg.TTL, cfg.Patience = cmp.Or(cfg.TTL, 15*time.Second), cmp.Or(cfg.Patience, 15*time.Second)
	findings := Examine(t.Context(), target, cfg)
	for _, f := range findings {
		line := fmt.Sprintf("%-12s %-8s %s", f.Name, f.Verdict, f.Found)
		if f.Fix != "" {
			line += "\n" + strings.Repeat(" ", 26) + "FIX: " + f.Fix
		}
		t.Log(line)
		if strings.Contains(fmt.Sprint(f, f.Err), secret) {
			t.Errorf("%s shows the password", f.Name)
		}
		if (f.Fix == "") != (f.Verdict == OK) || f.Found == "" || strings.Contains(f.Found+f.Fix, "\n") {
			t.Errorf("%s: got %+v, want what was found on a line, and a fix unless it is ok", f.Name, f)
		}
	}
	return findings
}

// ails wants just these findings not to be ok, each with these words.
func ails(t *testing.T, findings []Finding, want map[string]said) {
	t.Helper()
	seen := 0
	for _, f := range findings {
		w, ill := want[f.Name]
		switch {
		case ill && (f.Verdict != w.verdict || !strings.Contains(f.Found, w.found)):
			t.Errorf("%s: got %s: %s; want %s with %q", f.Name, f.Verdict, f.Found, w.verdict, w.found)
		case !ill && f.Verdict != OK:
			t.Errorf("%s: got %s: %s; want it to be ok", f.Name, f.Verdict, f.Found)
		}
		if ill {
			seen++
		}
	}
	if seen != len(want) {
		t.Errorf("got %d of the %d findings that are wanted: %v", seen, len(want), want)
	}
}

type said struct {
	verdict Verdict
	found   string
}

// outside is an address of this host by which others reach it.
func outside(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	t.Skip("this host has no address but loopback")
	return ""
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// quarantine has the database in a history that is not trusted yet.
func quarantine(t *testing.T, w *ward) {
	t.Helper()
	before, _, err := journal.EnterHistory(t.Context(), w.admin)
	if err != nil {
		t.Fatal(err)
	}
	if renewed, err := journal.Renew(t.Context(), w.admin, before, 0, 0); err != nil || !renewed {
		t.Fatalf("got %v and %v, want a new history", renewed, err)
	}
}

// preparing is a pool as go-sql-driver opens it that is told nothing.
func preparing(t *testing.T, s string) *coordd.DB {
	t.Helper()
	u := mustParse(t, s)
	pool, err := sql.Open("mysql", u.User.String()+"@tcp("+u.Host+")"+u.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return coordd.MySQL(pool)
}

// certificate makes one, and its key, in files that a server can read which runs as account.
func certificate(t *testing.T, account string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "coordd-tls-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		give(t, path, account)
		return path
	}
	return write("cert.pem", "CERTIFICATE", public), write("key.pem", "PRIVATE KEY", hidden)
}

// give hands a file to an account, if the servers do not run as we do.
func give(t *testing.T, path, account string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	owner, err := user.Lookup(account)
	if err != nil {
		t.Skip(err)
	}
	uid, uidErr := strconv.Atoi(owner.Uid)
	gid, gidErr := strconv.Atoi(owner.Gid)
	if err := errors.Join(uidErr, gidErr, os.Chown(path, uid, gid)); err != nil {
		t.Fatal(err)
	}
}
