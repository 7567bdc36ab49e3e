package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

// canary is a password that must appear nowhere.
const canary = "hunter2-canary"

// Neither the password of the DSN nor a token appears in any answer, header, metric, event or
// line of the log; also where the database's own errors have them.
func TestNoSecretIsTold(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		dbtest.Migrated(t, dsn)
		db, tap := dbtest.OpenTapped(t, withPassword(t, dsn))
		file, tokens := tokenFile(t)
		d := serve(t, db, nobody, func(c *httpapi.Config) {
			c.Tokens, c.Pprof = loaded(t, file), true
			c.Doctor = func(ctx context.Context) ([]httpapi.Finding, error) {
				_, err := httpapi.ReadDatabase(ctx, db)
				return nil, err
			}
		})
		secrets := []string{canary, url.QueryEscape(canary)}
		for _, token := range slices.Collect(maps.Values(tokens)) {
			secrets = append(secrets, token, strings.TrimPrefix(token, "coordd_"))
		}
		check := func(where, told string) {
			t.Helper()
			for _, s := range secrets {
				if strings.Contains(told, s) {
					t.Errorf("%s tells %s", where, s)
				}
			}
		}
		all := append(slices.Collect(maps.Values(tokens)), canary, tokens[httpapi.Admin]+"x")
		askAll := func() {
			operations(t, func(method, path string) {
				if path == "/v1/watch" {
					method = "HEAD"
				}
				for _, token := range all {
					a := d.do(request{method: method, path: path, header: bearer(token)})
					check(method+" "+path, a.body+fmt.Sprint(a.header))
					// What it was sent itself it repeats neither in errors nor in the record.
					a = d.do(request{method: method, path: path + "?token=" + canary, body: canary, header: http.Header{"Authorization": {"Bearer " + token}}})
					check("bad "+method+" "+path, a.body+fmt.Sprint(a.header))
				}
			})
		}
		askAll()
		events, _ := audits(t, db)
		check("the record", fmt.Sprint(events))
		for _, fails := range []error{fmt.Errorf("dial postgres://app:%s@db/app: %w", canary, dbtest.ErrReplyLost), errors.New("password " + canary)} {
			before := d.log.String()
			tap.Disturb(func(context.Context, string, func() error) error { return fails })
			askAll()
			if told := strings.TrimPrefix(d.log.String(), before); !strings.Contains(told, "request failed") {
				t.Fatal("the log has no failed request")
			} else {
				check("the log", strings.ReplaceAll(told, fails.Error(), "")) // a driver that says it is not ours to mend
			}
		}
		db.Pool().Close()
		before := d.log.String()
		askAll()
		check("the log", strings.TrimPrefix(d.log.String(), before))
	})
}

// withPassword gives a DSN's user the canary for a password, where the server asks for none.
func withPassword(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil || u.User == nil {
		return dsn
	}
	if _, has := u.User.Password(); !has {
		u.User = url.UserPassword(u.User.Username(), canary)
	}
	return u.String()
}
