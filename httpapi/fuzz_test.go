package httpapi_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

// FuzzRequests sends bytes that may be a request to a daemon, over TCP:
//
//	go test ./httpapi -run '^$' -fuzz FuzzRequests -fuzztime 5m
//
// Whatever they are, no answer is a 500, nothing panics, and the daemon does not grow.
func FuzzRequests(f *testing.F) {
	db := dbtest.Migrated(f, dbtest.SQLiteFile(f))
	alarm := new(alarm)
	d := serve(f, db, func(c *httpapi.Config) {
		c.Settings = func() any { return "x" }
		c.Limit(4, 0)
		c.Logger = slog.New(slog.NewTextHandler(alarm, nil))
	})
	join(f, db, "other", "zone=b")
	for _, seed := range []struct{ method, target, header, body string }{
		{"GET", "/v1/members?all&state=dead&label=zone%3Db&name=other", "", ""},
		{"GET", "/v1/members/app-7", "If-None-Match: \"x\", W/\"y\", *\r\n", ""},
		{"HEAD", "/v1/members/other%2f..", "", ""},
		{"POST", "/v1/members/app-7/drain", "Content-Type: application/json\r\nIf-Match: *\r\n", `{"reason":"\u0000\ud800"}`},
		{"POST", "/v1/members/app-7/undrain", "Content-Type: application/json; charset=utf-8\r\n", "{}"},
		{"POST", "/v1/members/other/forget", "Content-Type: a+b;c\r\n", "null"},
		{"POST", "/v1/members/nobody/drain", "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"},
		{"POST", "/v1/members/app-7/drain", "Expect: 100-continue\r\n", "[[[[[[[["},
		{"PUT", "/v1/locks/a%2Fb%20%C3%A4/grants/6c1d2b9e-7f5a-4a58-9a0e-2b4f0d3c8e11?ttl=1s&wait=1ms&tie=127.0.0.1:54321", "If-Match: \"1\"\r\n", ""},
		{"PUT", "/v1/locks/%2e%2e/grants/6C1D2B9E-7F5A-4A58-9A0E-2B4F0D3C8E11?permits=2&wait=5ms", "", ""},
		{"PUT", "/v1/locks/x/grants/{6c1d2b9e-7f5a-4a58-9a0e-2b4f0d3c8e11}?shared=true", "", "{}"},
		{"PUT", "/v1/elections/x%00/campaigns/00000000-0000-0000-0000-000000000000?priority=-9223372036854775808&value=%ff", "", ""},
		{"PUT", "/v1/elections/x/campaigns/6c1d2b9e-7f5a-4a58-9a0e-2b4f0d3c8e11?priority=1&value=a&ttl=1m0.0s", "", ""},
		{"GET", "/v1/elections/x/campaigns/6c1d2b9e-7f5a-4a58-9a0e-2b4f0d3c8e11", "If-Match: *\r\n", ""},
		{"DELETE", "/v1/locks/a%2Fb%20%C3%A4/grants/6c1d2b9e-7f5a-4a58-9a0e-2b4f0d3c8e11", "If-Match: \"18446744073709551616-\"\r\n", ""},
		{"GET", "/v1/locks?after=%F0%9F%94%92&limit=1000", "If-None-Match: W/\"x\"\r\n", ""},
		{"GET", "/v1/elections/%ff", "", ""},
		{"POST", "/v1/elections/x/transfer", "Content-Type: application/json\r\nIf-Match: \"1-x\"\r\n", `{"to":"app-7","within":"0s"}`},
		{"POST", "/v1/locks/x/release", "Content-Type: application/json\r\n", `{"within":"1ms","reason":"\u0000"}`},
		{"GET", "/role/leader/%2F%", "", ""},
		{"GET", "/v1/events?after=0&limit=2&topic=member&topic=audit&wait=1ms", "", ""},
		{"GET", "/v1/events?after=9223372036854775807&wait=30s", "", ""},
		{"GET", "/v1/watch?after=0&topic=member", "Last-Event-ID: 1\r\n", ""},
		{"GET", "/v1/watch", "Last-Event-ID: -1\r\n", ""},
		{"GET", "/v1/status", "Accept: a;,b\r\n", ""},
		{"GET", "/v1/doctor", "Accept-Encoding: gzip\r\n", ""},
		{"GET", "/v1/config", "Authorization: Bearer x\r\n", ""},
		{"GET", "/readyz?verbose", "", ""},
		{"GET", "/metrics?name[]=x", "Accept: application/openmetrics-text;version=1.0.0\r\n", ""},
		{"GET", "/openapi-3.0.json", "Range: bytes=0-1\r\n", ""},
		{"GET", "/role/member", "Host: evil.example\r\n", ""},
		{"DELETE", "/v1/members/app-7", "Origin: null\r\nSec-Fetch-Site: cross-site\r\n", ""},
		{"OPTIONS", "*", "", ""},
		{"CONNECT", "localhost:80", "", ""},
		{"PRI", "* HTTP/2.0", "\r\nSM\r\n", ""},
		{"GET", "http://localhost/v1/members?%zz;a=b&&=", "Upgrade: h2c\r\nConnection: Upgrade\r\n", ""},
	} {
		f.Add(seed.method, seed.target, seed.header, []byte(seed.body))
	}
	requests := 0
	f.Fuzz(func(t *testing.T, method, target, header string, body []byte) {
		status, answer := d.wild(t, method, target, header, body)
		if status == http.StatusInternalServerError {
			t.Errorf("got a 500: %s", answer)
		}
		if line := alarm.panicked.Swap(nil); line != nil {
			t.Fatalf("it panicked: %s", *line)
		}
		if requests++; requests%5000 == 0 {
			bounded(t)
		}
	})
	bounded(f)
}

// alarm is a log that keeps nothing but a panic.
type alarm struct{ panicked atomic.Pointer[string] }

func (a *alarm) Write(b []byte) (int, error) {
	if line := string(b); strings.Contains(line, "panic") {
		a.panicked.Store(&line)
	}
	return len(b), nil
}

// wild sends a request as it is, says that no more will follow, and reads the answer.
func (d *daemon) wild(t *testing.T, method, target, header string, body []byte) (status int, answer string) {
	conn, err := net.Dial("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	host := "Host: localhost\r\n"
	if strings.Contains(strings.ToLower(header), "host:") {
		host = ""
	}
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	if strings.Contains(strings.ToLower(header), "transfer-encoding:") {
		length = ""
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\n%s%s%s\r\n%s", method, target, host, length, header, body)
	conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("no answer in 20 s")
	}
	if err != nil {
		return 0, "" // it was cut off, or answered no method that this end knows
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("no end of the answer in 20 s: %s", b)
	}
	return resp.StatusCode, string(b)
}

// bounded fails the test if the process has grown beyond what a daemon needs.
func bounded(t testing.TB) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if goroutines := runtime.NumGoroutine(); m.HeapAlloc > 256<<20 || goroutines > 500 {
		t.Errorf("got %d MB and %d goroutines", m.HeapAlloc>>20, goroutines)
	}
}
