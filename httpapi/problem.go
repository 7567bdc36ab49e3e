package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/lock"
)

// Problem is an error as RFC 9457 has it, with a code for programs and a hint for people. As
// a Go error it is, by errors.Is, the error of coordd that its code stands for.
type Problem struct {
	Type    string    `json:"type" doc:"about:blank"`
	Title   string    `json:"title" doc:"what is wrong"`
	Status  int       `json:"status"`
	Code    string    `json:"code" doc:"the same, for programs"`
	Detail  string    `json:"detail,omitempty" doc:"of this occurrence"`
	Hint    string    `json:"hint,omitempty" doc:"what to do"`
	Members []string  `json:"members,omitempty" nullable:"false" doc:"ids of the members that a name may mean"`
	Errors  []Invalid `json:"errors,omitempty" nullable:"false" doc:"what of the request is invalid"`

	Holder  *Holder `json:"holder,omitempty" doc:"who holds alone what was asked for"`
	Sharing int     `json:"sharing,omitempty" doc:"how many share it"`
	Waiting int     `json:"waiting,omitempty" doc:"how many wait before the caller"`
	By      string  `json:"by,omitempty" doc:"who asked for it to be given up"`
	Reason  string  `json:"reason,omitempty" doc:"why"`

	after string // Retry-After, in seconds; empty: none
}

// Invalid is a part of a request that cannot be used.
type Invalid struct {
	Location string `json:"location,omitempty" doc:"as query.limit"`
	Message  string `json:"message"`
}

const problemType = "application/problem+json"

// meaning is a problem that an error of coordd becomes, and that becomes it again in a client.
type meaning struct {
	err error // nil: of HTTP alone
	Problem
}

// meanings is the one table of errors. The first one that fits an error is taken, so what is
// special stands before what is general. Statuses of 500 and above say that the request was in order.
var meanings = []meaning{
	{coordd.ErrSchema, Problem{Status: 503, Code: "schema", Title: "coordd's tables do not fit this program", Hint: "run `coordd migrate status`"}},
	{coordd.ErrUnknownOutcome, Problem{Status: 504, Code: "unknown_outcome", Title: "The commit was not answered: the change may have been made", Hint: "look before you ask for it again"}},
	{coordd.ErrHistoryLost, Problem{Status: 410, Code: "history_lost", Title: "The database has lost its history, and events may be missing", Hint: "read the state that you follow anew, and go on from the newest revision"}},
	{events.ErrCompacted, Problem{Status: 410, Code: "compacted", Title: "Events after this revision have been deleted, as they were old", Hint: "read the state that you follow anew, and go on from the newest revision"}},
	{coordd.ErrReadOnly, Problem{Status: 503, Code: "database_read_only", Title: "The database is read-only", Hint: "connect the daemon to the primary"}},
	{coordd.ErrForbidden, Problem{Status: 503, Code: "database_forbidden", Title: "The daemon's database user lacks a privilege", Hint: "grant it: `coordd doctor` says which"}},
	{coordd.ErrDenied, Problem{Status: 503, Code: "database_denied", Title: "The database refused the daemon's user or password", Hint: "correct the daemon's DSN"}},
	{coordd.ErrNoDatabase, Problem{Status: 503, Code: "database_missing", Title: "The server has no database of the name in the daemon's DSN", Hint: "create it, or correct the DSN"}},
	{coordd.ErrContended, Problem{Status: 503, Code: "database_contended", Title: "Other transactions kept the rows locked", Hint: "try again; look for a transaction that was left open"}},
	{coordd.ErrUnreachable, Problem{Status: 503, Code: "database_unreachable", Title: "The daemon cannot reach the database", Hint: "try again; the daemon's log has the cause"}},
	{coordd.ErrSlow, Problem{Status: 503, Code: "database_slow", Title: "The database did not answer the daemon in time", Hint: "try again; the daemon's log has the cause"}},
	{coordd.ErrInvalid, Problem{Status: 422, Code: "invalid", Title: "The request asks for what cannot be", Hint: "/openapi.json says what each parameter may be"}},

	{assign.ErrNoGroup, Problem{Status: 404, Code: "no_such_group", Title: "There is no such group of jobs", Hint: "/v1/groups has those that there are; PUT one to make it"}},
	{assign.ErrNoJob, Problem{Status: 404, Code: "no_such_job", Title: "There is no such job", Hint: "jobs in /v1/groups/GROUP has those that there are"}},
	{coordd.ErrNone, Problem{Status: 404, Code: "no_such_member", Title: "There is no such member", Hint: "/v1/members?all has those that are known"}},
	{coordd.ErrNone, Problem{Status: 409, Code: "wrong_state", Title: "The member is in a state in which this cannot be done"}},
	{coordd.ErrInvalid, Problem{Status: 409, Code: "ambiguous_name", Title: "Several members bear this name", Hint: "say which one by its id"}},
	{coordd.ErrNone, Problem{Status: 409, Code: "not_held", Title: "Nobody leads this election, or holds this lock"}},
	{election.ErrNoCandidate, Problem{Status: 409, Code: "no_candidate", Title: "The member that is to lead next does not campaign", Hint: "candidates in /v1/elections/NAME has who does"}},
	{coordd.ErrHeld, Problem{Status: 409, Code: "held", Title: "Somebody else has it, or waits for it before the caller", Hint: "ask again: with ?wait it takes its turn"}},
	{coordd.ErrHeld, Problem{Status: 409, Code: "held_elsewhere", Title: "The client has it by another daemon", Hint: "ask that daemon, or wait until it has given it back"}},
	{coordd.ErrLost, Problem{Status: 410, Code: "lost", Title: "It is not held any more", Hint: "stop what is done under it, give it up (DELETE), and ask for it anew"}},
	{coordd.ErrLost, Problem{Status: 410, Code: "requested", Title: "Somebody asked for it to be given up", Hint: "stop what is done under it, and give it up (DELETE): it is taken back when what was promised has passed"}},
	{coordd.ErrNone, Problem{Status: 404, Code: "no_such_grant", Title: "By this daemon the client has nothing, and waits for nothing, of this name"}},
	{coordd.ErrInvalid, Problem{Status: 400, Code: "other_terms", Title: "The client has asked for it in another way", Hint: "renew with the same shared, permits and priority; or give it up first"}},
	{coordd.ErrInvalid, Problem{Status: 400, Code: "tie_refused", Title: "It cannot be tied to this connection", Hint: "leave out tie, or call the daemon of the same host directly, on a connection that is kept alive"}},
	{nil, Problem{Status: 403, Code: "not_yours", Title: "Somebody else has taken it", Hint: "use the token with which it was taken"}},
	{nil, Problem{Status: 503, Code: "too_many_grants", Title: "The daemon holds as many rights for its clients as it takes, or as many wait", Hint: "give up what is not needed, or ask another daemon"}},
	{heartbeat.ErrSuspended, Problem{Status: 503, Code: "suspended", Title: "No session of this daemon carries rights now", Hint: "try again; /v1/status says more"}},
	{election.ErrUnfit, Problem{Status: 503, Code: "draining", Title: "This member drains, and leads nothing", Hint: "ask another daemon"}},
	{coordd.ErrQuarantine, Problem{Status: 503, Code: "quarantine", Title: "The database has lost its history, and nothing is granted until every right of before has run out", Hint: "try again"}},
	{nil, Problem{Status: 412, Code: "state_changed", Title: "It is not in the state that If-Match names any more", Hint: "read it again and decide anew"}},
	{heartbeat.ErrLeft, Problem{Status: 503, Code: "no_session", Title: "This daemon's session is not connected", Hint: "try again in a moment, or ask another daemon; /readyz?verbose says why"}},
	{nil, Problem{Status: 409, Code: "served_already", Title: "This daemon serves the group already", Hint: "a daemon serves a group for one stream at a time; one that was started with --group serves it by itself"}},
	{nil, Problem{Status: 410, Code: "stream_over", Title: "There is no such stream any more, and what it was given is others'", Hint: "end all jobs and open another"}},
	{nil, Problem{Status: 504, Code: "not_released", Title: "It was not given up in time, and the request for it stands", Hint: "look again in a moment"}},

	{coordd.ErrInvalid, Problem{Status: 400, Code: "malformed", Title: "The request cannot be read"}},
	{coordd.ErrInvalid, Problem{Status: 408, Code: "slow_request", Title: "The request's body did not come in time"}},
	{coordd.ErrInvalid, Problem{Status: 413, Code: "too_large", Title: "The request's body is too large", Hint: "64 KiB are the most, and 512 KiB where jobs are added or one is changed"}},
	{coordd.ErrInvalid, Problem{Status: 415, Code: "unsupported_media_type", Title: "The request's body is of a type that is not known", Hint: "send application/json"}},
	{nil, Problem{Status: 401, Code: "unauthorized", Title: "This needs a token or a client certificate that the daemon knows", Hint: "send `Authorization: Bearer TOKEN`"}},
	{nil, Problem{Status: 403, Code: "forbidden", Title: "This needs another role"}},
	{nil, Problem{Status: 403, Code: "cross_origin", Title: "A page of another origin may change nothing", Hint: "call the API from outside of a browser"}},
	{nil, Problem{Status: 404, Code: "not_found", Title: "There is nothing at this path", Hint: "/openapi.json has the paths"}},
	{nil, Problem{Status: 405, Code: "method_not_allowed", Title: "This path does not take this method", Hint: "/openapi.json has the methods"}},
	{nil, Problem{Status: 421, Code: "unknown_host", Title: "This Host is not served", Hint: "use localhost or 127.0.0.1, or add the name to the daemon's hosts"}},
	{nil, Problem{Status: 501, Code: "not_available", Title: "This daemon does not offer this"}},
	{nil, Problem{Status: 503, Code: "too_many_streams", Title: "As many wait for events as this daemon serves at once", Hint: "try again later, or ask another daemon"}},
	{context.Canceled, Problem{Status: 503, Code: "cancelled", Title: "The request was given up before it was answered"}},
	{context.DeadlineExceeded, Problem{Status: 504, Code: "timeout", Title: "The daemon took too long", Hint: "try again; the daemon's log has the cause"}},
	{nil, internal},
}

// internal is what an error becomes that the table does not know.
var internal = Problem{Status: 500, Code: "internal", Title: "Something went wrong in the daemon", Hint: "the daemon's log has the cause"}

// problem is the one of a code that the table has.
func problem(code string) *Problem {
	for _, m := range meanings {
		if m.Code == code {
			m.Type = "about:blank"
			return &m.Problem
		}
	}
	panic("there is no problem " + code)
}

func (p *Problem) Error() string {
	s := p.Title
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	for _, e := range p.Errors {
		s += ": " + e.Location + ": " + e.Message
	}
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// Unwrap is the error of coordd that the code stands for, or nil.
func (p *Problem) Unwrap() error {
	for _, m := range meanings {
		if m.Code == p.Code {
			return m.err
		}
	}
	return nil
}

// GetStatus and ContentType are what huma asks of an error.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of every problem.
func (p *Problem) ContentType(string) string { return problemType }

// with adds what is special about this occurrence.
func (p *Problem) with(detail string) *Problem {
	p.Detail = detail
	return p
}

// GetHeaders is what huma asks of an error that has headers.
func (p *Problem) GetHeaders() http.Header {
	if p.after == "" {
		return nil
	}
	return http.Header{"Retry-After": {p.after}}
}

// again says when to try again.
func (p *Problem) again(after time.Duration) *Problem {
	p.after = fmt.Sprint(int(after.Seconds()))
	return p
}

// of says who has what was asked for.
func (p *Problem) of(held *lock.HeldError) *Problem {
	p.Sharing, p.Waiting = held.Sharing, held.Waiting
	if held.Holder != "" || held.Sharing+held.Waiting > 0 { // or it is just being given to somebody
		p.Detail = held.Error()
	}
	if held.Holder != "" {
		p.Holder = &Holder{held.Member, held.Holder, held.Address, held.Client, false, held.Token, held.Since}
	}
	return p
}

// problem turns an error into an answer. What the database said is logged and not shown.
func (a *api) problem(ctx context.Context, err error) *Problem {
	var known *Problem
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(ctx.Err(), context.Canceled) { // nobody waits for the answer
		return problem("cancelled")
	}
	p := explain(err)
	switch {
	case p.Status >= 500:
		a.Logger.Error("request failed", "code", p.Code, "error", err)
	case p.Code == "invalid":
		p.Detail = err.Error()
	}
	return p
}

// explain finds the problem that an error becomes.
func explain(err error) *Problem {
	for _, m := range meanings {
		if m.err != nil && errors.Is(err, m.err) {
			return problem(m.Code)
		}
	}
	return problem(internal.Code)
}

// refuse answers with a problem.
func refuse(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // fails only if the client has gone
}

func refusing(code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { refuse(w, problem(code)) }
}

// ofHuma makes what huma finds wrong with a request a problem like all others. The values
// that were sent are not repeated.
func ofHuma(_ huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	code := map[int]string{400: "malformed", 408: "slow_request", 413: "too_large", 415: "unsupported_media_type", 422: "invalid"}[model.Status]
	if code == "" {
		code = internal.Code
	}
	p := problem(code)
	p.Status = model.Status
	for _, e := range model.Errors {
		p.Errors = append(p.Errors, Invalid{e.Location, e.Message})
	}
	return p, nil
}
