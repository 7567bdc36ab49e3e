package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

// listening is a stream, read as any client of Server-Sent Events would.
type listening struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
}

// listen opens a stream of events.
func (d *daemon) listen(t *testing.T, query, lastEventID string) *listening {
	t.Helper()
	l, status := d.open(t, "GET", "/v1/watch"+query, lastEventID)
	if status != 200 {
		t.Fatalf("got %d, want a stream", status)
	}
	return l
}

// open opens a stream, or says why it could not.
func (d *daemon) open(t *testing.T, method, path, lastEventID string) (l *listening, status int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, method, d.scheme+d.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastEventID != "" {
		r.Header.Set("Last-Event-ID", lastEventID)
	}
	resp, err := d.client.Do(r) //nolint:bodyclose // whoever reads the stream closes it
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == 200 && resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %s, want a stream", resp.Header.Get("Content-Type"))
	}
	t.Cleanup(func() {
		cancel()
		resp.Body.Close()
	})
	return &listening{t, bufio.NewScanner(resp.Body), cancel}, resp.StatusCode
}

// message is the next one, its fields joined by a bar; empty: the stream has ended.
func (l *listening) message() string {
	var fields []string
	for l.lines.Scan() {
		if l.lines.Text() == "" {
			return strings.Join(fields, "|")
		}
		fields = append(fields, l.lines.Text())
	}
	return ""
}

// wants fails the test unless the next message begins like this.
func (l *listening) wants(prefix string) (data string) {
	l.t.Helper()
	m := l.message()
	if !strings.HasPrefix(m, prefix) {
		l.t.Fatalf("got %q, want %q", m, prefix)
	}
	_, data, _ = strings.Cut(m, "|data: ")
	return data
}

func TestAStreamSaysWhereItIsResumed(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db, nobody)
		appended(t, db, "a", "1", "2")
		live := d.listen(t, "", "")
		live.wants("retry: 1000|id: 2") // so that it can be resumed before the first event
		appended(t, db, "a", "3")
		var e httpapi.Event
		if err := json.Unmarshal([]byte(live.wants("id: 3|event: change|data: {")), &e); err != nil || e.Revision != 3 || e.Subject != "3" {
			t.Fatalf("got %+v (%v)", e, err)
		}
		for query, last := range map[string]string{"": "1", "?after=1": "", "?after=0": "1"} {
			resumed := d.listen(t, query, last)
			resumed.wants("retry: 1000|id: 1")
			resumed.wants("id: 2|event: change")
			resumed.wants("id: 3|event: change")
		}
		appended(t, db, "b", "4")
		of := d.listen(t, "?topic=b&topic=c&after=0", "")
		of.wants("retry: 1000|id: 0")
		of.wants("id: 4|event: change")
		for query, last := range map[string]string{"?after=x": "", "?after=-1": "", "": "x", "?topic=%00": "", "?since=1": ""} {
			d.do(request{path: "/v1/watch" + query, header: http.Header{"Last-Event-Id": {last}}}).wants(t, 422, "invalid")
		}
		if a := d.do(request{method: "HEAD", path: "/v1/watch"}); a.status != 200 || a.header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("head: got %+v", a)
		}
	})
}

func TestAStreamSaysWhatItHasMissed(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db, nobody)
		appended(t, db, "a", "1", "2", "3", "4")
		if _, err := journal.Compact(t.Context(), db, journal.Retention{Count: 2}); err != nil {
			t.Fatal(err)
		}
		missed := func(last, code, id string) {
			t.Helper()
			s := d.listen(t, "", last)
			s.wants("retry: 1000|id: " + last)
			if data := s.wants("id: " + id + "|event: resync"); !strings.Contains(data, `"code":"`+code+`"`) {
				t.Fatalf("got %s, want the code %s", data, code)
			}
			if m := s.message(); m != "" {
				t.Fatalf("got %q, want the end", m)
			}
			d.listen(t, "", id).wants("retry: 1000|id: " + id) // from there it goes on
		}
		missed("1", "compacted", "4")
		missed("7", "history_lost", "4")
		live := d.listen(t, "", "2")
		live.wants("retry: 1000|id: 2")
		live.wants("id: 3|event: change")
		live.wants("id: 4|event: change")
		set(t, db, "revision", 3)
		live.wants("id: 3|event: resync")
	})
}

func TestTheEndOfTheDaemonEndsStreams(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db, nobody)
		s := d.listen(t, "", "")
		s.wants("retry: 1000|id: 0")
		began := time.Now()
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
		if m := s.message(); m != "" || s.lines.Err() != nil {
			t.Fatalf("got %q and %v, want a clean end", m, s.lines.Err())
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("it took %v", took)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db, nobody, func(c *httpapi.Config) { c.Limit(2, 0) })
		first := d.listen(t, "", "")
		first.wants("retry")
		d.listen(t, "", "").wants("retry")
		d.get("/v1/watch").wants(t, 503, "too_many_streams")
		d.get("/v1/events?after=0&wait=5s").wants(t, 503, "too_many_streams")
		read[httpapi.EventPage](d, "/v1/events?after=0") // does not wait
		first.close()
		dbtest.Eventually(t, "a free place", func() bool { return d.get("/v1/events?after=0&wait=1ms").status == 200 })
	})
}

// A stream goes on where it was when its database is away for a while.
func TestAStreamSurvivesAnOutage(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		shaky, tap := dbtest.OpenTapped(t, dsn)
		d := serve(t, shaky, nobody)
		s := d.listen(t, "", "")
		s.wants("retry: 1000|id: 0")
		appended(t, db, "a", "1")
		s.wants("id: 1|event: change")
		tap.Disturb(func(context.Context, string, func() error) error { return dbtest.ErrReplyLost })
		before := tap.Statements()
		dbtest.Eventually(t, "a failure", func() bool { return tap.Statements() > before })
		appended(t, db, "a", "2")
		tap.Disturb(nil)
		s.wants("id: 2|event: change")
	})
}

// A client that takes nothing is cut off, and what it holds is given back.
func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db, nobody)
		conn, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.(*net.TCPConn).SetReadBuffer(4096)
		fmt.Fprintf(conn, "GET /v1/watch?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
		dbtest.Eventually(t, "it listens", func() bool { return strings.Contains(d.get("/metrics").body, "coordd_event_streams 1") })
		big := journal.Event{Topic: "a", Subject: "x", Action: "happened", Data: `"` + strings.Repeat("x", 60000) + `"`}
		for range 20 { // 12 MB, more than the kernel holds for it
			err := db.Tx(t.Context(), func(tx coordd.Queries) error {
				return journal.Append(t.Context(), tx, slices.Repeat([]journal.Event{big}, 10)...)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		dbtest.Eventually(t, "it is cut off", func() bool { return strings.Contains(d.get("/metrics").body, "coordd_event_streams 0") })
	})
}
