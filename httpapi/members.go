package httpapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
)

// Member is a member as the API and the command line show it.
type Member struct {
	ID       string            `json:"id" doc:"of this incarnation: a UUIDv7"`
	Name     string            `json:"name" doc:"stable name, for people"`
	Address  string            `json:"address" doc:"where it is reached; may be empty"`
	Version  string            `json:"version" doc:"of its application; may be empty"`
	Kind     string            `json:"kind" enum:"member,client" doc:"client: a command that holds something for a while"`
	State    string            `json:"state" enum:"alive,draining,condemned,restarting,left,dead"`
	Overdue  bool              `json:"overdue" doc:"counts as living, but its latest beat is older than its TTL"`
	AgeMS    int64             `json:"age_ms" doc:"milliseconds since its latest beat, or since it left or was declared dead"`
	TTLMS    int64             `json:"ttl_ms" doc:"its TTL in milliseconds"`
	JoinedAt time.Time         `json:"joined_at" doc:"by the database's clock"`
	Held     int               `json:"held" doc:"how many leaderships and locks hang on it"`
	Slots    int               `json:"slots" doc:"how many slots of groups of jobs it owns"`
	Labels   map[string]string `json:"labels"`
	Load     *heartbeat.Load   `json:"load" doc:"as its latest beat brought it; null if it tells none"`
}

// Members shows members.
func Members(members []heartbeat.Member) []Member {
	shown := make([]Member, 0, len(members))
	for _, m := range members {
		shown = append(shown, show(m))
	}
	return shown
}

func show(m heartbeat.Member) Member {
	return Member{
		ID: m.ID, Name: m.Name, Address: m.Address, Version: m.Version, Kind: string(m.Kind),
		State: string(m.State), Overdue: m.Overdue(),
		AgeMS: m.Age.Milliseconds(), TTLMS: m.TTL.Milliseconds(), JoinedAt: m.Joined, Held: m.Held, Slots: m.Slots, Labels: m.Labels, Load: m.Load,
	}
}

// Find finds the member that somebody means by an id or a name. A name means the one that
// lives, or the only one. It fails with a [Problem]: [coordd.ErrNone] where there is none,
// [coordd.ErrInvalid] where several may be meant.
func Find(members []heartbeat.Member, which string) (heartbeat.Member, error) {
	var named, living []heartbeat.Member
	for _, m := range members {
		if m.ID == which {
			return m, nil
		}
		if m.Name == which {
			named = append(named, m)
			if !m.State.Ended() {
				living = append(living, m)
			}
		}
	}
	if len(living) > 0 {
		named = living
	}
	switch len(named) {
	case 0:
		return heartbeat.Member{}, problem("no_such_member")
	case 1:
		return named[0], nil
	}
	p := problem("ambiguous_name")
	for _, m := range named {
		p.Members = append(p.Members, m.ID)
	}
	return heartbeat.Member{}, p.with(strings.Join(p.Members, ", "))
}

// Filter says which members are shown. The zero one shows those that live, but no clients.
type Filter struct {
	State []string `query:"state,explode" nullable:"false" doc:"in one of these states; repeatable" enum:"alive,draining,condemned,restarting,left,dead"`
	Name  string   `query:"name" doc:"of this name"`
	Label []string `query:"label,explode" nullable:"false" doc:"with this label, key=value, or key alone for any value; repeatable, and all must fit" maxItems:"64"`
	All   bool     `query:"all" doc:"those that have ended too; they are shown anyway where state names theirs"`

	Clients bool `query:"clients" doc:"clients too: commands that hold something for a while"`
}

// Check fails with [coordd.ErrInvalid] where a state is none.
func (f Filter) Check() error {
	for _, s := range f.State {
		if !slices.Contains(states, heartbeat.State(s)) {
			return fmt.Errorf("%w: there is no state %q: a member is %s", coordd.ErrInvalid, s, strings.Trim(fmt.Sprint(states), "[]"))
		}
	}
	return nil
}

var states = []heartbeat.State{heartbeat.Alive, heartbeat.Draining, heartbeat.Condemned, heartbeat.Restarting, heartbeat.Left, heartbeat.Dead}

// shows says whether a filter lets a member through.
func (f Filter) shows(m heartbeat.Member) bool {
	switch {
	case len(f.State) > 0 && !slices.Contains(f.State, string(m.State)),
		len(f.State) == 0 && !f.All && m.State.Ended(),
		!f.Clients && m.Kind == heartbeat.Client,
		f.Name != "" && f.Name != m.Name:
		return false
	}
	for _, l := range f.Label {
		key, want, valued := strings.Cut(l, "=")
		if got, has := m.Labels[key]; !has || valued && got != want {
			return false
		}
	}
	return true
}

// Of returns the members that the filter shows.
func (f Filter) Of(members []heartbeat.Member) []heartbeat.Member {
	return slices.DeleteFunc(slices.Clone(members), func(m heartbeat.Member) bool { return !f.shows(m) })
}

type membersInput struct {
	Filter
	IfNoneMatch string `header:"If-None-Match"`
}

// Resolve takes ?all and ?clients without a value for true, wherever they stand.
func (in *membersInput) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	query := u.Query()
	for name, field := range map[string]*bool{"all": &in.All, "clients": &in.Clients} {
		if query.Has(name) && query.Get(name) == "" {
			*field = true
		}
	}
	return nil
}

type membersOutput struct {
	Status int
	ETag   string `header:"ETag"`
	Body   struct {
		Members []Member `json:"members" nullable:"false" doc:"by name and then by when they joined"`
	}
}

func (a *api) members(ctx context.Context, in *membersInput) (*membersOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	members, err := heartbeat.Members(ctx, a.DB)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	members = in.Of(members)
	out := &membersOutput{ETag: listETag(members)}
	out.Status = unless(in.IfNoneMatch, out.ETag)
	out.Body.Members = Members(members)
	return out, nil
}

type memberInput struct {
	ID          string `path:"id" doc:"its id, or its name if no other living member bears that"`
	IfNoneMatch string `header:"If-None-Match"`
}

type memberOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"changes with the member's state"`
	Body   Member
}

func (a *api) member(ctx context.Context, in *memberInput) (*memberOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	m, err := a.find(ctx, in.ID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &memberOutput{unless(in.IfNoneMatch, etag(m)), etag(m), show(m)}, nil
}

// find reads the member that a request means.
func (a *api) find(ctx context.Context, which string) (heartbeat.Member, error) {
	members, err := heartbeat.Members(ctx, a.DB)
	if err != nil {
		return heartbeat.Member{}, err
	}
	return Find(members, which)
}
