package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/rights"
	"github.com/coordd/coordd/lock"
)

// Grant is a lock that the daemon's session holds on behalf of a client. What it promises, and how
// that is kept, says package rights.
type Grant struct {
	Name    string `json:"name" doc:"of the lock"`
	UUID    string `json:"uuid" doc:"the client's"`
	State   string `json:"state" enum:"waiting,held,ending" doc:"ending: it is not renewed any more, and given back when what was promised has passed"`
	Token   int64  `json:"token" doc:"the fencing token; 0: it is not held yet"`
	ValidMS int64  `json:"valid_ms" doc:"the client may count on it for so many milliseconds since it sent the request that this answers, by a clock that goes on while the machine sleeps. 0: this promises nothing"`
	TTLMS   int64  `json:"ttl_ms" doc:"it is given back if it is not renewed for so many milliseconds"`
	Shared  bool   `json:"shared" doc:"others may share it"`
	Permits int    `json:"permits" doc:"so many may hold it; 0: it is no semaphore"`
	Member  string `json:"member" doc:"the id of the member whose session holds it"`
	Tied    bool   `json:"tied" doc:"it ends with the connection of its client"`
}

// Campaign is a leadership that the daemon's session has on behalf of a client, or seeks.
type Campaign struct {
	Name     string `json:"name" doc:"of the election"`
	UUID     string `json:"uuid" doc:"the client's"`
	State    string `json:"state" enum:"waiting,held,ending" doc:"held: it leads; ending: it is not renewed any more, and resigns when what was promised has passed"`
	Term     int64  `json:"term" doc:"the fencing token; 0: it does not lead yet"`
	ValidMS  int64  `json:"valid_ms" doc:"the client may count on it for so many milliseconds since it sent the request that this answers, by a clock that goes on while the machine sleeps. 0: this promises nothing"`
	TTLMS    int64  `json:"ttl_ms" doc:"it resigns if it is not renewed for so many milliseconds"`
	Priority int    `json:"priority" doc:"before those of a lower one who wait"`
	Value    string `json:"value" doc:"that it publishes"`
	Member   string `json:"member" doc:"the id of the member whose session leads"`
	Tied     bool   `json:"tied" doc:"it ends with the connection of its client"`
}

// RightPath names a right of a client.
type RightPath struct {
	Name    string `path:"name"`
	UUID    string `path:"uuid" format:"uuid" doc:"drawn by the client for one who holds: two that share it share what is held"`
	IfMatch string `header:"If-Match" doc:"the token in quotes, as the ETag has it: renew, or give up, what is held under this token, and nothing else"`

	client string
	token  int64
}

// Resolve reads the id and the token.
func (in *RightPath) Resolve(huma.Context) (errs []error) {
	id, err := uuid.Parse(in.UUID)
	if err != nil || len(in.UUID) != len(uuid.Nil.String()) {
		errs = append(errs, &huma.ErrorDetail{Location: "path.uuid", Message: "it must be a UUID, as uuidgen makes them"})
	}
	in.client = id.String()
	if in.IfMatch == "" {
		return errs
	}
	token, ok := tokenOf(in.IfMatch)
	if !ok {
		errs = append(errs, &huma.ErrorDetail{Location: "header.If-Match", Message: "it must be one ETag, the token in quotes"})
	}
	in.token = token
	return errs
}

func (in *RightPath) key(kind rights.Kind) rights.Key {
	return rights.Key{Kind: kind, Name: in.Name, Client: in.client}
}

// RightTimes say for how long a right is asked for, and waited for.
type RightTimes struct {
	TTL  string `query:"ttl" example:"10s" doc:"give it back if it is not renewed for so long: between 1s and 1m; left out, 10s"`
	Wait string `query:"wait" example:"30s" doc:"wait so long for its turn; 30s at most. The place in the queue is kept for a ttl after the answer. Left out, it takes no place"`
	Tied

	ttl, wait time.Duration
}

// Tied ends something with the client's connection.
type Tied struct {
	Tie string `query:"tie" example:"127.0.0.1:54321" doc:"the client's own end of the connection on which this comes, as its system tells: the right ends at once when the client ends the connection. For clients of the same host"`

	tie     <-chan struct{}
	refused *Problem
}

// resolve reads what it is tied to.
func (in *Tied) resolve(ctx huma.Context) []error {
	if in.Tie == "" {
		return nil
	}
	end, err := netip.ParseAddrPort(in.Tie)
	if err != nil {
		return []error{&huma.ErrorDetail{Location: "query.tie", Message: "it must be the client's own end of the connection, as 127.0.0.1:54321"}}
	}
	r, _ := humachi.Unwrap(ctx)
	in.tie, in.refused = tieOf(r, end)
	return nil
}

// Resolve reads the times and the connection.
func (in *RightTimes) Resolve(ctx huma.Context) (errs []error) {
	read := func(name, given string, least, most, otherwise time.Duration) time.Duration {
		if given == "" {
			return otherwise
		}
		d, err := time.ParseDuration(given)
		if err != nil || d < least || d > most {
			errs = append(errs, &huma.ErrorDetail{Location: "query." + name, Message: fmt.Sprintf("it must be a time between %v and %v", least, most)})
		}
		return d
	}
	in.ttl = read("ttl", in.TTL, rights.LeastTTL, rights.MostTTL, rights.DefaultTTL)
	in.wait = read("wait", in.Wait, 0, maxWait, 0)
	return append(errs, in.resolve(ctx)...)
}

// ask is what a client asks for.
func (in *RightTimes) ask(ctx context.Context, key rights.Key, token int64) rights.Ask {
	return rights.Ask{Key: key, By: byOf(ctx), TTL: in.ttl, Wait: in.wait, Tie: in.tie, Token: token}
}

// byOf is who asks, as the rights know them.
func byOf(ctx context.Context) rights.By {
	who, _ := ctx.Value(callerKey{}).(caller)
	return rights.By{Name: who.name, Admin: who.role == Admin}
}

type grantInput struct {
	RightPath
	RightTimes
	Shared  bool `query:"shared" doc:"others may share it"`
	Permits int  `query:"permits" minimum:"1" maximum:"1000000" doc:"it is a semaphore of so many permits"`
}

// Resolve is that of what it is made of.
func (in *grantInput) Resolve(ctx huma.Context) []error {
	errs := append(in.RightPath.Resolve(ctx), in.RightTimes.Resolve(ctx)...)
	if in.Shared && in.Permits > 0 {
		errs = append(errs, &huma.ErrorDetail{Location: "query.permits", Message: "a lock is shared by any number, or by so many: leave out one"})
	}
	return errs
}

type grantOutput struct {
	ETag  string `header:"ETag" doc:"the token in quotes"`
	Token string `header:"Coordd-Fencing-Token" doc:"the token"`
	Body  Grant
}

func showGrant(g rights.Grant) *grantOutput {
	out := &grantOutput{Body: Grant{
		Name: g.Name, UUID: g.Client, State: string(g.State), Token: g.Token, ValidMS: g.Valid.Milliseconds(), TTLMS: g.TTL.Milliseconds(),
		Shared: g.Shared, Permits: g.Permits, Member: g.Member, Tied: g.Tied,
	}}
	out.ETag, out.Token = tokenHeaders(g.Token)
	return out
}

// tokenHeaders are empty where there is no token.
func tokenHeaders(token int64) (etag, fencing string) {
	if token == 0 {
		return "", ""
	}
	return fmt.Sprintf(`"%d"`, token), fmt.Sprint(token)
}

// putGrant takes a lock for a client, or renews it.
func (a *api) putGrant(ctx context.Context, in *grantInput) (*grantOutput, error) {
	ask := in.ask(ctx, in.key(rights.Lock), in.token)
	ask.Shared, ask.Permits = in.Shared, in.Permits
	g, err := a.put(ctx, ask, in.refused)
	if err != nil {
		return nil, err
	}
	return showGrant(g), nil
}

func (a *api) put(ctx context.Context, ask rights.Ask, refused *Problem) (rights.Grant, error) {
	if refused != nil {
		return rights.Grant{}, refused
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.life, cancel)()
	g, err := a.desk.Put(waiting, ask)
	if err != nil {
		return g, a.rightProblem(ctx, err)
	}
	return g, nil
}

func (a *api) getGrant(_ context.Context, in *RightPath) (*grantOutput, error) {
	g, err := a.desk.Get(in.key(rights.Lock))
	if err != nil {
		return nil, problem("no_such_grant")
	}
	return showGrant(g), nil
}

func (a *api) deleteGrant(ctx context.Context, in *RightPath) (*struct{}, error) {
	return nil, a.giveUp(ctx, in.key(rights.Lock), in.token)
}

// giveUp waits until it is given back, and if it is not its client that gives it up, for what that was
// promised.
func (a *api) giveUp(ctx context.Context, key rights.Key, token int64) error {
	if err := a.desk.Delete(ctx, key, byOf(ctx), token); err != nil {
		return a.rightProblem(ctx, err)
	}
	return nil
}

type campaignInput struct {
	RightPath
	RightTimes
	Priority int    `query:"priority" doc:"before those of a lower one who wait"`
	Value    string `query:"value" doc:"published with the leadership; left out in a renewal, it stays as it is"`

	valued bool
}

// Resolve is that of what it is made of.
func (in *campaignInput) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	in.valued = u.Query().Has("value")
	return append(in.RightPath.Resolve(ctx), in.RightTimes.Resolve(ctx)...)
}

type campaignOutput struct {
	ETag  string `header:"ETag" doc:"the term in quotes"`
	Token string `header:"Coordd-Fencing-Token" doc:"the term"`
	Body  Campaign
}

func showCampaign(g rights.Grant) *campaignOutput {
	out := &campaignOutput{Body: Campaign{
		Name: g.Name, UUID: g.Client, State: string(g.State), Term: g.Token, ValidMS: g.Valid.Milliseconds(), TTLMS: g.TTL.Milliseconds(),
		Priority: g.Priority, Value: g.Value, Member: g.Member, Tied: g.Tied,
	}}
	out.ETag, out.Token = tokenHeaders(g.Token)
	return out
}

// putCampaign has a client lead, or renews that.
func (a *api) putCampaign(ctx context.Context, in *campaignInput) (*campaignOutput, error) {
	ask := in.ask(ctx, in.key(rights.Election), in.token)
	ask.Priority = in.Priority
	if in.valued {
		ask.Value = &in.Value
	}
	g, err := a.put(ctx, ask, in.refused)
	if err != nil {
		return nil, err
	}
	return showCampaign(g), nil
}

func (a *api) getCampaign(_ context.Context, in *RightPath) (*campaignOutput, error) {
	g, err := a.desk.Get(in.key(rights.Election))
	if err != nil {
		return nil, problem("no_such_grant")
	}
	return showCampaign(g), nil
}

func (a *api) deleteCampaign(ctx context.Context, in *RightPath) (*struct{}, error) {
	return nil, a.giveUp(ctx, in.key(rights.Election), in.token)
}

// registerGrants names every operation on what clients hold.
func (a *api) registerGrants(h huma.API) {
	const grants, campaigns = "/v1/locks/{name}/grants/{uuid}", "/v1/elections/{name}/campaigns/{uuid}"
	put := func(id, path, summary string) huma.Operation {
		o := waiting(get(id, path, summary), maxWait)
		o.Method = http.MethodPut
		return o
	}
	remove := func(id, path, summary string) huma.Operation {
		o := waiting(get(id, path, summary), rights.MostTTL)
		o.Method = http.MethodDelete
		return o
	}
	huma.Register(h, put("put-grant", grants, "Take a lock for a client, or renew it. Needs the role operator"), a.putGrant)
	huma.Register(h, get("grant", grants, "A lock that a client has, or waits for, by this daemon"), a.getGrant)
	huma.Register(h, remove("delete-grant", grants, "Give a lock up, or the place in its queue. Needs the role operator"), a.deleteGrant)
	huma.Register(h, put("put-campaign", campaigns, "Have a client lead, or renew that. Needs the role operator"), a.putCampaign)
	huma.Register(h, get("campaign", campaigns, "A leadership that a client has, or waits for, by this daemon"), a.getCampaign)
	huma.Register(h, remove("delete-campaign", campaigns, "Resign, or give the place in the queue up. Needs the role operator"), a.deleteCampaign)
}

// rightProblem is what a client is told whom a right was refused.
func (a *api) rightProblem(ctx context.Context, err error) *Problem {
	var busy *rights.BusyError
	var elsewhere *rights.ElsewhereError
	var lost *rights.LostError
	switch {
	case errors.As(err, &busy) && busy.Queued:
		return problem("held").of(busy.Held).again(0)
	case errors.As(err, &busy):
		return problem("held").of(busy.Held).again(time.Second)
	case errors.As(err, &elsewhere):
		return problem("held_elsewhere").of(elsewhere.Held)
	case errors.As(err, &lost):
		return lostProblem(lost)
	case errors.Is(err, rights.ErrOther):
		return problem("other_terms")
	case errors.Is(err, rights.ErrNotYours):
		by := asked(ctx, "")
		a.Logger.Warn("request refused", "code", "not_yours", "actor", by.Actor, "remote", by.Remote, "via", by.Via)
		return problem("not_yours")
	case errors.Is(err, rights.ErrFull):
		return problem("too_many_grants").again(5 * time.Second)
	case errors.Is(err, rights.ErrNoSession):
		return problem("suspended").again(time.Second)
	case errors.Is(err, coordd.ErrNone):
		return problem("no_such_grant")
	}
	p := a.problem(ctx, err)
	if p.Status == http.StatusServiceUnavailable {
		return p.again(time.Second)
	}
	return p
}

func lostProblem(lost *rights.LostError) *Problem {
	var by *lock.RequestedError
	if errors.As(lost, &by) {
		p := problem("requested")
		p.By, p.Reason = by.By, by.Reason
		return p
	}
	return problem("lost").with(lost.Error())
}
