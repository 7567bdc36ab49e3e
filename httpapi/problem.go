package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

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
	if !errors.Is(ctx.Err(), context.Canceled) { // the client waits for the answer
		a.Logger.Error("request failed", "code", p.Code, "error", err)
	}
	p.Type = "about:blank"
	return p
}

// refuse answers with a problem.
func refuse(p problem) http.HandlerFunc {
	p.Type = "about:blank"
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", problemType)
		w.WriteHeader(p.Status)
		_ = json.NewEncoder(w).Encode(p) // fails only if the client has gone
	}
}

// problemSchema describes a problem.
func problemSchema() *huma.Schema {
	text := func(about string) *huma.Schema { return &huma.Schema{Type: huma.TypeString, Description: about} }
	return &huma.Schema{
		Type: huma.TypeObject,
		Properties: map[string]*huma.Schema{
			"type":   text("about:blank"),
			"title":  text("what is wrong"),
			"status": {Type: huma.TypeInteger},
			"code":   text("the same, for programs"),
			"hint":   text("what to do"),
		},
		Required: []string{"type", "title", "status", "code"},
	}
}
