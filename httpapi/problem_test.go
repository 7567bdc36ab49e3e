package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

// Each error of coordd becomes one problem, and that problem it again, so that exit codes are the
// same whoever asked the database.
func TestErrorsAreProblemsAndBack(t *testing.T) {
	db := dbtest.Migrated(t, dbtest.SQLiteFile(t))
	var fails error
	d := serve(t, db, nobody, func(c *httpapi.Config) {
		c.Doctor = func(context.Context) ([]httpapi.Finding, error) { return nil, fails }
	})
	for kind, want := range map[error]struct {
		status int
		code   string
	}{
		coordd.ErrSchema:         {503, "schema"},
		coordd.ErrUnknownOutcome: {504, "unknown_outcome"},
		coordd.ErrHistoryLost:    {410, "history_lost"},
		events.ErrCompacted:      {410, "compacted"},
		coordd.ErrReadOnly:       {503, "database_read_only"},
		coordd.ErrForbidden:      {503, "database_forbidden"},
		coordd.ErrDenied:         {503, "database_denied"},
		coordd.ErrNoDatabase:     {503, "database_missing"},
		coordd.ErrContended:      {503, "database_contended"},
		coordd.ErrUnreachable:    {503, "database_unreachable"},
		coordd.ErrSlow:           {503, "database_slow"},
		context.DeadlineExceeded: {504, "timeout"},
		coordd.ErrInvalid:        {422, "invalid"},
		coordd.ErrNone:           {404, "no_such_member"},
		errors.New("any other"):  {500, "internal"},
	} {
		fails = fmt.Errorf("doctor: %w", &coordd.Error{Kind: kind, Err: errors.New("a secret of the driver"), Hint: "a hint"})
		if errors.Is(kind, coordd.ErrInvalid) {
			fails = fmt.Errorf("doctor: %w", kind) // the only one that is said in its own words
		}
		p := d.get("/v1/doctor").wants(t, want.status, want.code)
		if errors.Is(&p, kind) != (want.code != "internal") || p.Hint == "" {
			t.Errorf("%v: got %v", kind, p)
		}
	}
}
