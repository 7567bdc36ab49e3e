package httpapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
)

// MaxWithin is for how long at the most somebody is waited for who was asked to give up what it holds.
const MaxWithin = time.Minute

const (
	defaultWithin   = 15 * time.Second // no client was promised more
	condemnedWithin = 30 * time.Second // and then, for a session of the longest TTL to be dead
)

// Ask is what a client asks of those who hold something: to give it up.
type Ask struct {
	Reason string        // why, for the record
	Within time.Duration // who has not obeyed by then loses its session
}

// AskInput is what a request to give something up has beside its body.
type AskInput struct {
	IfMatch string `header:"If-Match" doc:"the ETag, as it was when this was decided, of which its token counts; or that token in quotes"`

	token int64
}

// Resolve reads the token.
func (in *AskInput) Resolve(huma.Context) []error {
	if in.IfMatch == "" {
		return nil
	}
	token, ok := tokenOf(in.IfMatch)
	if !ok {
		return []error{&huma.ErrorDetail{Location: "header.If-Match", Message: "it must be one ETag of this election or lock"}}
	}
	in.token = token
	return nil
}

// AskBody says why, and how long to wait.
type AskBody struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"why, for the record, and for who is asked"`
	Within string `json:"within,omitempty" example:"15s" doc:"who has not obeyed by then is condemned, with all that its session holds: 1m at the most; 0s or left out, 15s"`

	within time.Duration
}

// Resolve reads the time.
func (b *AskBody) Resolve(huma.Context) []error {
	b.within = defaultWithin
	if b.Within == "" {
		return nil
	}
	d, err := time.ParseDuration(b.Within)
	if err != nil || d < 0 || d > MaxWithin {
		return []error{&huma.ErrorDetail{Location: "body.within", Message: "it must be a time between 0s and 1m"}}
	}
	if d > 0 {
		b.within = d
	}
	return nil
}

// ask is what is asked of who holds something. Without a body nothing has read the time.
func (in *AskInput) ask(ctx context.Context, name string, b AskBody) election.Ask {
	if b.Within == "" {
		b.within = defaultWithin
	}
	by := asked(ctx, b.Reason)
	return election.Ask{Name: name, By: by.Actor, Reason: b.Reason, Within: b.within, Token: in.token, Audit: []heartbeat.By{by}}
}

// obeyed asks and waits until it was obeyed.
func (a *api) obeyed(ctx context.Context, ask election.Ask, request func(context.Context, *coordd.DB, election.Ask) error) error {
	bound, cancel := context.WithTimeout(ctx, ask.Within+condemnedWithin)
	defer cancel()
	defer context.AfterFunc(a.life, cancel)()
	err := request(bound, a.DB, ask)
	switch {
	case err == nil:
		a.Logger.Info("it was given up, as it was asked", "name", ask.Name, "actor", ask.By, "reason", ask.Reason)
		return nil
	case errors.Is(err, election.ErrNoCandidate):
		return problem("no_candidate")
	case errors.Is(err, coordd.ErrNone):
		return problem("not_held")
	case errors.Is(err, coordd.ErrFenced):
		return problem("state_changed").with(fmt.Sprintf("its token is not %d any more", ask.Token))
	case bound.Err() != nil && ctx.Err() == nil:
		return problem("not_released")
	}
	return a.problem(ctx, err)
}
