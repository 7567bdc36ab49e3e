package httpapi

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/coordd/coordd/lock"
)

// Lock is a lock as the API and the command line show it.
type Lock struct {
	Name    string      `json:"name"`
	Holder  string      `json:"holder" doc:"the name of the member that holds it, the first if several share it; empty: nobody does"`
	Token   int64       `json:"token" doc:"the newest fencing token: it grows with each grant, and is below 2^53"`
	Holders []Holder    `json:"holders" nullable:"false" doc:"all who hold it, alone or shared"`
	Waiters []Candidate `json:"waiters" nullable:"false" doc:"who waits for it, in their order"`
}

// Holder is one that holds a lock.
type Holder struct {
	Name     string    `json:"member" doc:"the name of the member whose session holds it"`
	MemberID string    `json:"member_id" doc:"its id"`
	Address  string    `json:"address" doc:"of that member; may be empty"`
	Client   string    `json:"client" doc:"on whose behalf it holds; empty: its own"`
	Shared   bool      `json:"shared" doc:"others may hold it too"`
	Token    int64     `json:"token" doc:"the fencing token"`
	Since    time.Time `json:"since" doc:"by the database's clock"`
}

// Locks shows locks.
func Locks(infos []lock.Info) []Lock {
	shown := make([]Lock, 0, len(infos))
	for _, i := range infos {
		shown = append(shown, ShowLock(i))
	}
	return shown
}

// ShowLock shows a lock.
func ShowLock(i lock.Info) Lock {
	shown := Lock{Name: i.Name, Token: i.Token, Holders: make([]Holder, 0, len(i.Holders)), Waiters: showWaiters(i.Waiters)}
	for _, h := range i.Holders {
		shown.Holders = append(shown.Holders, Holder{h.Name, h.MemberID, h.Address, h.Client, h.Shared, h.Token, h.Since})
	}
	if len(i.Holders) > 0 {
		shown.Holder = i.Holders[0].Name
	}
	return shown
}

type locksOutput struct {
	Status int
	ETag   string `header:"ETag"`
	Body   LockPage
}

// LockPage is a piece of the list of locks.
type LockPage struct {
	Locks []Lock `json:"locks" nullable:"false" doc:"by name"`
	Next  string `json:"next,omitempty" doc:"ask for what is after this name next; left out: there is no more"`
}

func (a *api) locks(ctx context.Context, in *pageInput) (*locksOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	infos, err := lock.Page(ctx, a.DB, in.After, in.Limit)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	all := Locks(infos)
	out := &locksOutput{ETag: weakETag(all), Body: LockPage{Locks: all}}
	out.Status = unless(in.IfNoneMatch, out.ETag)
	out.Body.Next = in.next(len(all), func() string { return all[len(all)-1].Name })
	return out, nil
}

type lockInput struct {
	Name        string `path:"name"`
	IfNoneMatch string `header:"If-None-Match"`
}

type lockOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"begins with the token"`
	Body   Lock
}

func (a *api) lock(ctx context.Context, in *lockInput) (*lockOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return a.readLock(ctx, in)
}

// readLock reads a lock. One that nobody has ever asked for is free, and has no token.
func (a *api) readLock(ctx context.Context, in *lockInput) (*lockOutput, error) {
	info, err := lock.Inspect(ctx, a.DB, in.Name)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	l := ShowLock(info)
	tag := grantETag(l.Token, l)
	return &lockOutput{unless(in.IfNoneMatch, tag), tag, l}, nil
}

type releaseInput struct {
	Name string `path:"name"`
	AskInput
	Body *struct {
		_ struct{} `additionalProperties:"false"`
		AskBody
	} `required:"false"`
}

// release asks those who hold a lock to release it, and tells how it stands when they have.
func (a *api) release(ctx context.Context, in *releaseInput) (*lockOutput, error) {
	ask := in.ask(ctx, in.Name, AskBody{})
	if in.Body != nil {
		ask = in.ask(ctx, in.Name, in.Body.AskBody)
	}
	if err := a.obeyed(ctx, ask, lock.RequestRelease); err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	return a.readLock(ctx, &lockInput{Name: in.Name})
}

// registerLocks names every operation on locks.
func (a *api) registerLocks(h huma.API) {
	huma.Register(h, get("locks", "/v1/locks", "The locks that were asked for, and who holds them"), a.locks)
	huma.Register(h, get("lock", "/v1/locks/{name}", "One lock: who holds it, and who waits for it"), a.lock)
	huma.Register(h, patient(post("release", "/v1/locks/{name}/release", "Ask those who hold a lock to release it, and wait until they have. Needs the role operator")), a.release)
}
