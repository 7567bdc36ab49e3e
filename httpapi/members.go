package httpapi

import (
	"context"
	"time"

	"github.com/coordd/coordd/heartbeat"
)

// Member is a member as the API and the command line show it.
type Member struct {
	ID       string            `json:"id" doc:"of this incarnation: a UUIDv7"`
	Name     string            `json:"name" doc:"stable name, for people"`
	Address  string            `json:"address" doc:"where it is reached; may be empty"`
	Version  string            `json:"version" doc:"of its application; may be empty"`
	State    string            `json:"state" enum:"alive,draining,condemned,restarting,left,dead"`
	Overdue  bool              `json:"overdue" doc:"counts as living, but its latest beat is older than its TTL"`
	AgeMS    int64             `json:"age_ms" doc:"milliseconds since its latest beat, or since it left or was declared dead"`
	TTLMS    int64             `json:"ttl_ms" doc:"its TTL in milliseconds"`
	JoinedAt time.Time         `json:"joined_at" doc:"by the database's clock"`
	Labels   map[string]string `json:"labels"`
	Load     *heartbeat.Load   `json:"load" doc:"as its latest beat brought it; null if it tells none"`
}

// Members shows members.
func Members(members []heartbeat.Member) []Member {
	shown := make([]Member, 0, len(members))
	for _, m := range members {
		shown = append(shown, Member{
			ID: m.ID, Name: m.Name, Address: m.Address, Version: m.Version,
			State: string(m.State), Overdue: m.Overdue(),
			AgeMS: m.Age.Milliseconds(), TTLMS: m.TTL.Milliseconds(), JoinedAt: m.Joined, Labels: m.Labels, Load: m.Load,
		})
	}
	return shown
}

type membersOutput struct {
	Body struct {
		Members []Member `json:"members" doc:"everyone that the database knows, by name and then by when it joined"`
	}
}

func (a *api) members(ctx context.Context, _ *struct{}) (*membersOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout/2)
	defer cancel()
	members, err := heartbeat.Members(ctx, a.DB)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := new(membersOutput)
	out.Body.Members = Members(members)
	return out, nil
}
