package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/client"
)

// What is asked of a daemon about elections and locks.
func TestADaemonIsAskedForRights(t *testing.T) {
	var asked string
	answer := `{}`
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = fmt.Sprintf("%s %s %s", r.Method, r.URL.EscapedPath(), body)
		if answer == "" {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"code":"no_such_member","title":"x"}`
		}
		io.WriteString(w, answer)
	}))
	defer daemon.Close()
	c := connect(t, client.Config{Addr: daemon.URL})
	ctx, ask := t.Context(), httpapi.Ask{Reason: "why", Within: time.Minute}
	for _, test := range []struct {
		do     func() (any, error)
		answer string
		want   string
		got    string
	}{
		{func() (any, error) { return c.Elections(ctx) }, `{"elections":[{"name":"a","leader":"b","term":7}]}`, "GET /v1/elections ", "[{a b    7  <nil> []}]"},
		{func() (any, error) { e, err := c.Election(ctx, "a/b"); return e.Leader, err }, `{"leader":"b"}`, "GET /v1/elections/a%2Fb ", "b"},
		{func() (any, error) { return nil, c.Resign(ctx, "a b", ask) }, `{}`, `POST /v1/elections/a%20b/resign {"reason":"why","within":"1m0s"}`, "<nil>"},
		{func() (any, error) { return nil, c.Transfer(ctx, "a", "app-7", ask) }, `{}`, `POST /v1/elections/a/transfer {"to":"app-7","reason":"why","within":"1m0s"}`, "<nil>"},
		{func() (any, error) { return c.Locks(ctx) }, `{"locks":[{"name":"a","holder":"b","token":7}]}`, "GET /v1/locks ", "[{a b 7 [] []}]"},
		{func() (any, error) { l, err := c.Lock(ctx, "a"); return l.Token, err }, `{"token":7}`, "GET /v1/locks/a ", "7"},
		{func() (any, error) { return nil, c.ReleaseLock(ctx, "a", ask) }, `{}`, `POST /v1/locks/a/release {"reason":"why","within":"1m0s"}`, "<nil>"},
	} {
		answer = test.answer
		got, err := test.do()
		if shown := fmt.Sprint(got); err != nil || asked != test.want || shown != test.got {
			t.Errorf("asked %q, got %s and %v; want %q and %s", asked, shown, err, test.want, test.got)
		}
		answer = ""
		if _, err := test.do(); !errors.Is(err, coordd.ErrNone) {
			t.Errorf("%s, refused: got %v, want %v", test.want, err, coordd.ErrNone)
		}
	}
}
