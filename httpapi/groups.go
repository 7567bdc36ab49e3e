package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/coordd/coordd/assign"
)

// Group is a group of jobs as the API and the command line show it.
type Group struct {
	Name           string            `json:"name"`
	Slots          int               `json:"slots" doc:"fixed when the group is made"`
	Strategy       string            `json:"strategy" doc:"where a slot without an owner goes"`
	Selector       map[string]string `json:"selector" doc:"what a member's labels must say for it to be given jobs"`
	MoveCap        int               `json:"move_cap" doc:"percent of the slots that may be on their way at once"`
	GatherMS       int64             `json:"gather_ms" doc:"how long members that have come are gathered before jobs move to them; below 0: they are not"`
	RestartGraceMS int64             `json:"restart_grace_ms" doc:"how long the jobs of a member that restarts are kept for its name; below 0: they are not"`
	ObeyMS         int64             `json:"obey_ms" doc:"a member that has not carried a plan out for so long is condemned"`
}

// Groups shows groups.
func Groups(groups []assign.Group) []Group {
	shown := make([]Group, 0, len(groups))
	for _, g := range groups {
		shown = append(shown, showGroup(g))
	}
	return shown
}

func showGroup(g assign.Group) Group {
	o := g.Defaults()
	selector := o.Selector
	if selector == nil {
		selector = map[string]string{}
	}
	return Group{
		g.Name, g.Slots, g.Strategy, selector, o.MoveCap,
		Milliseconds(o.Gather), Milliseconds(o.RestartGrace), Milliseconds(o.Obey),
	}
}

// Milliseconds are those of an option of a group. What is shorter than one counts as one, above
// or below 0: 0 would mean the default.
func Milliseconds(d time.Duration) int64 {
	if ms := d.Milliseconds(); ms != 0 {
		return ms
	}
	return int64(cmp.Compare(d, 0))
}

// Share is what one member has of a group.
type Share struct {
	Member   string `json:"member" doc:"its name; empty: what nobody has"`
	MemberID string `json:"member_id"`
	State    string `json:"state"`
	Slots    int    `json:"slots"`
	Jobs     int    `json:"jobs"`
	Weight   int64  `json:"weight" doc:"of the jobs that are not paused"`
	Leaving  int    `json:"leaving" doc:"slots on their way to others"`
	Coming   int    `json:"coming" doc:"slots on their way to it"`
}

// Shares shows shares.
func Shares(shares []assign.Share) []Share {
	shown := make([]Share, 0, len(shares))
	for _, s := range shares {
		shown = append(shown, Share{s.Name, s.MemberID, string(s.State), s.Slots, s.Jobs, s.Weight, s.Leaving, s.Coming})
	}
	return shown
}

// Preview is what would move.
type Preview struct {
	Slots int    `json:"slots" doc:"how many would move"`
	Jobs  int    `json:"jobs" doc:"that are in them"`
	Moves []Move `json:"moves" nullable:"false"`
}

// Move is a slot that would move.
type Move struct {
	Slot int    `json:"slot"`
	Jobs int    `json:"jobs" doc:"how many are in it"`
	From string `json:"from" doc:"the name of a member; empty: nobody"`
	To   string `json:"to" doc:"the name of a member; empty: nobody"`
}

// ShowPreview shows moves.
func ShowPreview(moves []assign.Move) Preview {
	p := Preview{Slots: len(moves), Moves: make([]Move, 0, len(moves))}
	for _, m := range moves {
		p.Jobs += m.Jobs
		p.Moves = append(p.Moves, Move(m))
	}
	return p
}

// GroupPath names a group.
type GroupPath struct {
	Group string `path:"group"`
}

type groupsOutput struct {
	Body struct {
		Groups []Group `json:"groups" nullable:"false" doc:"by name"`
	}
}

func (a *api) groups(ctx context.Context, _ *struct{}) (*groupsOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	groups, err := assign.Groups(ctx, a.DB)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := &groupsOutput{}
	out.Body.Groups = Groups(groups)
	return out, nil
}

type groupOutput struct{ Body Group }

func (a *api) group(ctx context.Context, in *GroupPath) (*groupOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	g, err := assign.Find(ctx, a.DB, in.Group)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &groupOutput{showGroup(g)}, nil
}

// Milliseconds are limited to those that a time.Duration can hold.
type defineInput struct {
	GroupPath
	Body *struct {
		_              struct{}          `additionalProperties:"false"`
		Slots          int               `json:"slots,omitempty" doc:"only when the group is made; left out: 4096, or as many as it has"`
		Strategy       string            `json:"strategy,omitempty"`
		Selector       map[string]string `json:"selector,omitempty"`
		MoveCap        int               `json:"move_cap,omitempty"`
		GatherMS       int64             `json:"gather_ms,omitempty" minimum:"-9223372036854" maximum:"9223372036854"`
		RestartGraceMS int64             `json:"restart_grace_ms,omitempty" minimum:"-9223372036854" maximum:"9223372036854"`
		ObeyMS         int64             `json:"obey_ms,omitempty" minimum:"-9223372036854" maximum:"9223372036854"`
	} `required:"false"`
}

// define makes a group, or replaces its options.
func (a *api) define(ctx context.Context, in *defineInput) (*groupOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	g := Group{Name: in.Group}
	if b := in.Body; b != nil {
		g = Group{in.Group, b.Slots, b.Strategy, b.Selector, b.MoveCap, b.GatherMS, b.RestartGraceMS, b.ObeyMS}
	}
	if err := assign.Define(ctx, a.DB, g.Group(), asked(ctx, "")); err != nil {
		return nil, a.problem(ctx, err)
	}
	a.Logger.Info("group defined", "group", in.Group, "actor", asked(ctx, "").Actor)
	return a.group(ctx, &in.GroupPath)
}

// Group is the same for package assign.
func (g Group) Group() assign.Group {
	return assign.Group{Name: g.Name, Slots: g.Slots, Strategy: g.Strategy, Options: assign.Options{
		Selector: g.Selector, MoveCap: g.MoveCap, Gather: milliseconds(g.GatherMS),
		RestartGrace: milliseconds(g.RestartGraceMS), Obey: milliseconds(g.ObeyMS),
	}}
}

func milliseconds(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

type sharesOutput struct {
	Body struct {
		Shares []Share `json:"shares" nullable:"false" doc:"by the members' names, and last what nobody has"`
	}
}

func (a *api) shares(ctx context.Context, in *GroupPath) (*sharesOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	shares, err := assign.Shares(ctx, a.DB, in.Group)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := &sharesOutput{}
	out.Body.Shares = Shares(shares)
	return out, nil
}

type previewInput struct {
	GroupPath
	Without []string `query:"without,explode" nullable:"false" maxItems:"100" doc:"as if the member of this name were gone; repeatable"`
	With    []string `query:"with,explode" nullable:"false" maxItems:"100" doc:"as if a member of this name and of weight 1 had come; repeatable"`
}

type previewOutput struct{ Body Preview }

func (a *api) preview(ctx context.Context, in *previewInput) (*previewOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	moves, err := assign.Preview(ctx, a.DB, in.Group, in.Without, in.With)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &previewOutput{ShowPreview(moves)}, nil
}

// registerGroups names every operation on groups and jobs.
func (a *api) registerGroups(h huma.API) {
	const group, job = "/v1/groups/{group}", "/v1/groups/{group}/jobs/{key}"
	huma.Register(h, get("groups", "/v1/groups", "The groups of jobs that there are"), a.groups)
	huma.Register(h, get("group", group, "One group of jobs"), a.group)
	huma.Register(h, by(http.MethodPut, post("define-group", group, "Make a group, or replace its strategy and all of its options: what is left out is the default. Needs the role operator")), a.define)
	huma.Register(h, get("shares", group+"/shares", "What each member has of a group"), a.shares)
	huma.Register(h, get("preview", group+"/preview", "What would move if members went or came"), a.preview)
	huma.Register(h, get("jobs", group+"/jobs", "The jobs of a group, and who looks after them"), a.jobs)
	huma.Register(h, post("add-jobs", group+"/jobs", "Add jobs; those that are there stay as they are. Needs the role operator"), a.addJobs)
	huma.Register(h, get("job", job, "One job, and who looks after it"), a.job)
	huma.Register(h, by(http.MethodPut, post("update-job", job, "Give a job another payload, labels and weight, pause or resume it. Needs the role operator")), a.updateJob)
	huma.Register(h, by(http.MethodDelete, post("remove-job", job, "Remove a job. Needs the role operator")), a.removeJob)
	huma.Register(h, post("pause-job", job+"/pause", "Have nobody run a job. Needs the role operator"), a.pauseJob)
	huma.Register(h, post("resume-job", job+"/resume", "Have a paused job run again. Needs the role operator"), a.resumeJob)
	huma.Register(h, get("assignments", group+"/assignments", "The jobs that one member looks after"), a.assignments)
	huma.Register(h, by(http.MethodPost, waiting(sidecarStream(post("serve", group+"/stream", "Serve a group through this daemon: a stream of jobs to begin and to end. Needs the role operator")), writeTimeout)), a.serveGroup)
	huma.Register(h, post("stream-done", group+"/stream/{stream}/done", "Say which changes of a stream are carried out. Needs the role operator"), a.streamDone)
	huma.Register(h, post("stream-renew", group+"/stream/{stream}/renew", "Say that whoever reads a stream lives. Needs the role operator"), a.streamRenew)
}

// by is an operation of another method.
func by(method string, o huma.Operation) huma.Operation {
	o.Method = method
	return o
}
