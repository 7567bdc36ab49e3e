package httpapi

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/coordd/coordd/election"
)

// Election is an election as the API and the command line show it.
type Election struct {
	Name       string      `json:"name"`
	Leader     string      `json:"leader" doc:"the name of the member that leads; empty: nobody does"`
	LeaderID   string      `json:"leader_id" doc:"the id of that member"`
	Address    string      `json:"address" doc:"of that member; may be empty"`
	Client     string      `json:"client" doc:"on whose behalf it leads; empty: its own"`
	Term       int64       `json:"term" doc:"the newest fencing token: it grows with each leadership, and is below 2^53"`
	Value      string      `json:"value" doc:"that the leader has published"`
	Since      *time.Time  `json:"since" doc:"by the database's clock; null: nobody leads"`
	Candidates []Candidate `json:"candidates" nullable:"false" doc:"who waits to lead, in their order"`
}

// Candidate is one that waits, for a leadership or for a lock.
type Candidate struct {
	Name     string    `json:"member" doc:"the name of the member whose session waits"`
	MemberID string    `json:"member_id" doc:"its id"`
	Priority int64     `json:"priority" doc:"those of a higher one come first"`
	Since    time.Time `json:"since" doc:"by the database's clock"`
}

// Elections shows elections.
func Elections(infos []election.Info) []Election {
	shown := make([]Election, 0, len(infos))
	for _, i := range infos {
		shown = append(shown, ShowElection(i))
	}
	return shown
}

// ShowElection shows an election.
func ShowElection(i election.Info) Election {
	shown := Election{Name: i.Name, Term: i.Term, Candidates: showWaiters(i.Candidates)}
	if l := i.Leader; l != nil {
		shown.Leader, shown.LeaderID, shown.Address, shown.Client = l.Name, l.MemberID, l.Address, l.Client
		shown.Value, shown.Since = l.Value, &l.Since
	}
	return shown
}

func showWaiters(waiters []election.Candidate) []Candidate {
	shown := make([]Candidate, 0, len(waiters))
	for _, w := range waiters {
		shown = append(shown, Candidate{w.Name, w.MemberID, w.Priority, w.Since})
	}
	return shown
}

// pageInput asks for a page of what is listed by name.
type pageInput struct {
	After       string `query:"after" doc:"a name; left out, the list is shown from its beginning"`
	Limit       int    `query:"limit" minimum:"1" maximum:"1000" default:"1000" doc:"at most so many"`
	IfNoneMatch string `header:"If-None-Match"`
}

// next is the name after which the next page begins; empty: there is none.
func (in *pageInput) next(shown int, last func() string) string {
	if shown < in.Limit {
		return ""
	}
	return last()
}

type electionsOutput struct {
	Status int
	ETag   string `header:"ETag"`
	Body   ElectionPage
}

// ElectionPage is a piece of the list of elections.
type ElectionPage struct {
	Elections []Election `json:"elections" nullable:"false" doc:"by name"`
	Next      string     `json:"next,omitempty" doc:"ask for what is after this name next; left out: there is no more"`
}

func (a *api) elections(ctx context.Context, in *pageInput) (*electionsOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	infos, err := election.Page(ctx, a.DB, in.After, in.Limit)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	all := Elections(infos)
	out := &electionsOutput{ETag: weakETag(all), Body: ElectionPage{Elections: all}}
	out.Status = unless(in.IfNoneMatch, out.ETag)
	out.Body.Next = in.next(len(all), func() string { return all[len(all)-1].Name })
	return out, nil
}

type electionInput struct {
	Name        string `path:"name"`
	IfNoneMatch string `header:"If-None-Match"`
}

type electionOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"begins with the term"`
	Body   Election
}

func (a *api) election(ctx context.Context, in *electionInput) (*electionOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return a.readElection(ctx, in)
}

// readElection reads an election. One in which nobody has ever campaigned has no leader and no
// term.
func (a *api) readElection(ctx context.Context, in *electionInput) (*electionOutput, error) {
	info, err := election.Inspect(ctx, a.DB, in.Name)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	e := ShowElection(info)
	tag := grantETag(e.Term, e)
	return &electionOutput{unless(in.IfNoneMatch, tag), tag, e}, nil
}

type resignInput struct {
	Name string `path:"name"`
	AskInput
	Body *struct {
		_ struct{} `additionalProperties:"false"`
		AskBody
	} `required:"false"`
}

// resign asks a leader to resign.
func (a *api) resign(ctx context.Context, in *resignInput) (*electionOutput, error) {
	ask := in.ask(ctx, in.Name, AskBody{})
	if in.Body != nil {
		ask = in.ask(ctx, in.Name, in.Body.AskBody)
	}
	return a.dismiss(ctx, ask)
}

type transferInput struct {
	Name string `path:"name"`
	AskInput
	Body struct {
		_ struct{} `additionalProperties:"false"`
		AskBody
		To string `json:"to" minLength:"1" doc:"the candidate that is to lead next: the id of its member, or its name if no other living member bears that"`
	}
}

// transfer asks a leader to resign in favour of a candidate.
func (a *api) transfer(ctx context.Context, in *transferInput) (*electionOutput, error) {
	ask := in.ask(ctx, in.Name, in.Body.AskBody)
	bound, cancel := bounded(ctx)
	defer cancel()
	m, err := a.find(bound, in.Body.To)
	if err != nil {
		return nil, a.problem(bound, err)
	}
	ask.To = m.ID
	return a.dismiss(ctx, ask)
}

// dismiss tells how the election stands when the leader leads no more.
func (a *api) dismiss(ctx context.Context, ask election.Ask) (*electionOutput, error) {
	err := a.obeyed(ctx, ask, election.Request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	return a.readElection(ctx, &electionInput{Name: ask.Name})
}

// registerElections names every operation on elections.
func (a *api) registerElections(h huma.API) {
	huma.Register(h, get("elections", "/v1/elections", "The elections in which anybody has campaigned, and who leads"), a.elections)
	huma.Register(h, get("election", "/v1/elections/{name}", "One election: who leads, and who waits to"), a.election)
	huma.Register(h, patient(post("resign", "/v1/elections/{name}/resign", "Ask the leader to resign, and wait until it has. Needs the role operator")), a.resign)
	huma.Register(h, patient(post("transfer", "/v1/elections/{name}/transfer", "Ask the leader to resign in favour of a candidate, and wait until it has. Needs the role operator")), a.transfer)
}

// patient is an operation that waits until somebody has obeyed.
func patient(o huma.Operation) huma.Operation {
	return waiting(o, MaxWithin+condemnedWithin)
}
