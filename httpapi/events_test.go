package httpapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

func set(t *testing.T, db *coordd.DB, name string, value int64) {
	t.Helper()
	if _, err := db.Exec(t.Context(), `update coordd_meta set value = ? where name = ?`, value, name); err != nil {
		t.Fatal(err)
	}
}

func TestEventsArePagedWithACursor(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db, nobody)
		for i := range 25 {
			appended(t, db, []string{"a", "b"}[i%2], fmt.Sprint(i))
		}
		var got []string
		pages := 0
		for next := int64(0); ; pages++ {
			page := read[httpapi.EventPage](d, fmt.Sprintf("/v1/events?after=%d&limit=4&topic=a&topic=c", next))
			if len(page.Events) == 0 {
				if page.Next != 25 {
					t.Fatalf("at the end: got next %d, want 25, beyond what is of other topics", page.Next)
				}
				break
			}
			for _, e := range page.Events {
				if e.Topic != "a" || string(e.Data) != `{"a":"<b>"}` || e.Revision <= next || e.Action != "happened" || e.At.IsZero() {
					t.Fatalf("got %+v after %d", e, next)
				}
				got = append(got, e.Subject)
			}
			next = page.Next
		}
		if got := strings.Join(got, " "); got != "0 2 4 6 8 10 12 14 16 18 20 22 24" || pages != 4 {
			t.Fatalf("got %s on %d pages", got, pages)
		}
		for _, query := range []string{"after=-1", "after=x", "limit=0", "limit=1001", "wait=31s", "wait=5", "wait=-1s", "topic=", "topic=%00", "topic=%ff", "topic=+x",
			"topic=" + strings.Repeat("x", 201), strings.Repeat("topic=x&", 17)} {
			if query == "topic=" {
				continue // huma takes an empty value for none
			}
			d.get("/v1/events?"+query).wants(t, 422, "invalid")
		}
	})
}

func TestARequestWaitsForAnEvent(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db, nobody)
		appended(t, db, "a", "1")
		waited := make(chan httpapi.EventPage, 1)
		go func() { waited <- read[httpapi.EventPage](d, "/v1/events?after=1&topic=a&wait=30s") }()
		appended(t, db, "b", "2")
		appended(t, db, "a", "3", "4")
		page := <-waited
		if len(page.Events) == 0 || page.Events[0].Subject != "3" || page.Next != page.Events[len(page.Events)-1].Revision {
			t.Fatalf("got %+v, want what came while it waited", page)
		}
		began := time.Now()
		if page = read[httpapi.EventPage](d, "/v1/events?after=4&wait=50ms"); len(page.Events) != 0 || page.Events == nil || page.Next != 4 {
			t.Fatalf("nothing came: got %+v, want no event and the same revision", page)
		}
		if took := time.Since(began); took < 50*time.Millisecond {
			t.Fatalf("got an answer after %v, want it to wait", took)
		}
	})
}

// Who waits does not hold the end of the daemon up, and is told where it stands.
func TestTheEndOfTheDaemonEndsWaiting(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db, nobody)
		waited := make(chan httpapi.EventPage, 1)
		go func() { waited <- read[httpapi.EventPage](d, "/v1/events?after=0&wait=30s") }()
		dbtest.Eventually(t, "it waits", func() bool { return strings.Contains(d.get("/metrics").body, "coordd_event_streams 1") })
		began := time.Now()
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
		if page := <-waited; page.Next != 0 || len(page.Events) != 0 {
			t.Fatalf("got %+v", page)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("the daemon took %v to end", took)
		}
	})
}

func TestEventsThatAreGoneAreSaid(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db, nobody)
		appended(t, db, "a", "1", "2", "3", "4")
		if _, err := journal.Compact(t.Context(), db, journal.Retention{Count: 2}); err != nil {
			t.Fatal(err)
		}
		d.get("/v1/events?after=1").wants(t, 410, "compacted")
		d.get("/v1/events?after=0&wait=5s").wants(t, 410, "compacted")
		if page := read[httpapi.EventPage](d, "/v1/events"); len(page.Events) != 2 || page.Events[0].Subject != "3" {
			t.Fatalf("from the oldest: got %+v, want 3 and 4", page)
		}
		d.get("/v1/events?after=5").wants(t, 410, "history_lost")
		gone := make(chan answer, 1)
		go func() { gone <- d.get("/v1/events?after=4&wait=30s") }()
		dbtest.Eventually(t, "it waits", func() bool { return strings.Contains(d.get("/metrics").body, "coordd_event_streams 1") })
		set(t, db, "revision", 3)
		(<-gone).wants(t, 410, "history_lost")
	})
}

// Data that is no JSON, by whomever it was written, breaks no answer.
func TestDataIsAlwaysJSON(t *testing.T) {
	for data, want := range map[string]string{`{"a":1}`: `{"a":1}`, ``: `""`, `{"a"`: `"{\"a\""`} {
		b, err := json.Marshal(httpapi.ShowEvent(events.Event{Data: data}))
		if err != nil || !strings.HasSuffix(string(b), `"data":`+want+`}`) {
			t.Errorf("%q: got %s (%v), want %s", data, b, err, want)
		}
	}
}
