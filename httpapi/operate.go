package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
)

// operation is what may be done to a member. One that is in a state of done needs nothing
// more: to ask twice does it once.
type operation struct {
	name, summary string
	do            func(ctx context.Context, db *coordd.DB, id string, by ...heartbeat.By) error
	from, done    []heartbeat.State // done[0] is the state that it leads to
}

var operations = []operation{
	{"drain", "Ask a member to hand over its leaderships and jobs, and take no others. Needs the role operator", heartbeat.Drain,
		[]heartbeat.State{heartbeat.Alive}, []heartbeat.State{heartbeat.Draining}},
	{"undrain", "Take a drain back. Needs the role operator", heartbeat.Undrain,
		[]heartbeat.State{heartbeat.Draining}, []heartbeat.State{heartbeat.Alive}},
	{"forget", "Refuse a member's beats from now on, so that it is dead when its right has run out. Needs the role operator", heartbeat.Forget,
		[]heartbeat.State{heartbeat.Alive, heartbeat.Draining}, []heartbeat.State{heartbeat.Condemned, heartbeat.Dead}},
}

type operateInput struct {
	ID      string `path:"id" doc:"its id, or its name if no other living member bears that"`
	IfMatch string `header:"If-Match" doc:"the ETag of the member as it was when this was decided"`
	Body    *struct {
		_      struct{} `additionalProperties:"false"`
		Reason string   `json:"reason,omitempty" maxLength:"500" doc:"why, for the record"`
	} `required:"false"`
}

// operate does an operation, and records who asked for it in the same commit. Between the look at
// the member and the change its state may change: the change is made from a state that the operation
// may come from, or not at all. So If-Match is exact where that is one state; a member that begins
// to drain in that moment may be forgotten as the one that was alive.
func (a *api) operate(o operation) func(context.Context, *operateInput) (*memberOutput, error) {
	return func(ctx context.Context, in *operateInput) (*memberOutput, error) {
		ctx, cancel := bounded(ctx)
		defer cancel()
		m, err := a.apply(ctx, o, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &memberOutput{http.StatusOK, etag(m), show(m)}, nil
	}
}

func (a *api) apply(ctx context.Context, o operation, in *operateInput) (heartbeat.Member, error) {
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	which := in.ID
	for {
		m, err := a.find(ctx, which)
		switch {
		case err != nil:
			return m, err
		case in.IfMatch != "" && !anyOf(in.IfMatch, etag(m)):
			return m, problem("state_changed").with("it is " + string(m.State))
		case slices.Contains(o.done, m.State):
			return m, nil
		case !slices.Contains(o.from, m.State):
			return m, problem("wrong_state").with(fmt.Sprintf("%s is %s", m.Name, m.State))
		}
		err = o.do(ctx, a.DB, m.ID, asked(ctx, reason))
		if errors.Is(err, coordd.ErrNone) {
			which = m.ID // its state has changed meanwhile: look again, at the same one
			continue
		}
		if err == nil {
			m.State = o.done[0]
			a.Logger.Info("member changed", "member", m.ID, "name", m.Name, "state", m.State, "actor", asked(ctx, reason).Actor)
		}
		return m, err
	}
}
