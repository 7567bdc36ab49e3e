package httpapi_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

// Milliseconds that no time.Duration can hold are refused, and the largest that one can are taken.
func TestTimesOfAGroupAreBounded(t *testing.T) {
	db := dbtest.Migrated(t, dbtest.SQLiteFile(t))
	d := serve(t, db, nobody)
	put := func(option, ms string) answer {
		return d.do(request{method: "PUT", path: "/v1/groups/g", body: fmt.Sprintf(`{"slots":1,%q:%s}`, option, ms), header: http.Header{"Content-Type": {"application/json"}}})
	}
	for _, option := range []string{"gather_ms", "restart_grace_ms", "obey_ms"} {
		for _, ms := range []string{"9223372036855", "18446744073710", "9223372036854775807", "-9223372036855", "1e30"} {
			if p := put(option, ms).wants(t, 422, "invalid"); len(p.Errors) != 1 || p.Errors[0].Location != "body."+option {
				t.Errorf("%s of %s: got %+v, want it named", option, ms, p)
			}
		}
		put(option, "9223372036854").wantsStatus(t, 200)
	}
	put("gather_ms", "-9223372036854").wantsStatus(t, 200)
	if g, err := assign.Find(t.Context(), db, "g"); err != nil || g.Gather != -9223372036854*time.Millisecond {
		t.Errorf("got %v, %v", g.Gather, err)
	}
}

// An option below a millisecond is not shown as 0, which means the default to whoever sends it back.
func TestTimesBelowAMillisecondAreNotZero(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		0: 0, 1: 1, -1: -1, time.Microsecond: 1, -999 * time.Microsecond: -1,
		time.Millisecond: 1, -time.Millisecond: -1, 3 * time.Second: 3000, 1<<63 - 1: 9223372036854, -1 << 63: -9223372036854,
	} {
		if got := httpapi.Milliseconds(d); got != want {
			t.Errorf("%v: got %d ms, want %d", d, got, want)
		}
	}
	shown := httpapi.Groups([]assign.Group{{Name: "g", Options: assign.Options{Gather: -1, RestartGrace: -1}}})[0]
	if back := shown.Group(); back.Gather >= 0 || back.RestartGrace >= 0 {
		t.Errorf("got %+v, want both below 0 as they were", back)
	}
}
