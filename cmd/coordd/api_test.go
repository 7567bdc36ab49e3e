package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

// systemd hears when the daemon is ready, which is when it has joined, and when it ends.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	told := func() string {
		l.SetReadDeadline(time.Now().Add(time.Minute))
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	file := dbtest.SQLiteFile(t)
	p := startWith(t, []string{"NOTIFY_SOCKET=" + socket}, file, "run", "--name", "app-7", "--listen", "off")
	if got := told(); got != "READY=1" {
		t.Fatalf("got %q, want READY=1", got)
	}
	if code, stdout, stderr := run(t, "members", "--dsn", file, "-o", "name"); code != 0 || stdout != "app-7\n" {
		t.Fatalf("when it is ready: got code %d, %q, %s, want it to be a member", code, stdout, stderr)
	}
	p.signal(t, syscall.SIGTERM)
	if got := told(); got != "STOPPING=1" {
		t.Fatalf("got %q, want STOPPING=1", got)
	}
	if code := p.exit(t); code != 0 {
		t.Fatalf("got exit code %d, want 0", code)
	}
}

// SIGHUP reads the token file again. One that cannot be read changes nothing.
func TestAHangupReadsTheTokensAgain(t *testing.T) {
	t.Parallel()
	token, line, err := httpapi.NewToken("grafana", "viewer")
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := httpapi.NewToken("oncall", "operator")
	if err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(t.TempDir(), "tokens")
	write := func(s string) {
		if err := os.WriteFile(tokens, []byte(s+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(other)
	address := freeAddress(t)
	p := start(t, dbtest.SQLiteFile(t), "run", "--listen", address, "--tokens", tokens)
	status := func() int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/v1/members", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	dbtest.Eventually(t, "a daemon that does not know the token", func() bool { return status() == http.StatusUnauthorized })
	write(line)
	p.signal(t, syscall.SIGHUP)
	dbtest.Eventually(t, "a daemon that knows it", func() bool { return status() == http.StatusOK })
	write("nonsense")
	p.signal(t, syscall.SIGHUP)
	dbtest.Eventually(t, "a daemon that says so", func() bool { return strings.Contains(p.output.String(), "a file is not taken") })
	if got := status(); got != http.StatusOK {
		t.Fatalf("after a file that cannot be read: got %d, want %d as before", got, http.StatusOK)
	}
	if strings.Contains(fmt.Sprint(p.output), token) {
		t.Fatal("the log has a token")
	}
}
