package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/coordd/coordd"
)

// problem is an error as RFC 9457 has it, with a code for programs and a hint for people.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Hint   string `json:"hint,omitempty"`
}

const problemType = "application/problem+json"

func (p problem) Error() string             { return p.Title }
func (p problem) GetStatus() int            { return p.Status }
func (p problem) ContentType(string) string { return problemType }

// problem turns an error into an answer: the one table of statuses. What the database said
// is logged and not shown.
func (a *api) problem(ctx context.Context, err error) error {
	p := problem{Status: http.StatusServiceUnavailable}
	switch {
	case errors.Is(err, coordd.ErrSchema):
		p.Code, p.Title, p.Hint = "schema", "coordd's tables do not fit this program", "run `coordd migrate status`"
	case errors.Is(err, coordd.ErrUnreachable), errors.Is(err, coordd.ErrSlow), errors.Is(err, coordd.ErrContended):
		p.Code, p.Title, p.Hint = "database_unavailable", "The database cannot be reached or does not answer in time", "try again; the daemon's log has the cause"
	case errors.Is(err, coordd.ErrDenied), errors.Is(err, coordd.ErrForbidden), errors.Is(err, coordd.ErrReadOnly), errors.Is(err, coordd.ErrNoDatabase):
		p.Code, p.Title, p.Hint = "database_refused", "The database refuses the daemon", "the daemon's log has the cause"
	default:
		p.Status, p.Code, p.Title = http.StatusInternalServerError, "internal", "Something went wrong in the daemon"
		p.Hint = "the daemon's log has the cause"
	}
	if ctx.Err() == nil {
		a.Logger.Error("request failed", "code", p.Code, "error", err)
	}
	p.Type = "about:blank"
	return p
}

func writeProblem(w http.ResponseWriter, p problem) {
	p.Type = "about:blank"
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // fails only if the client has gone
}
