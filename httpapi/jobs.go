package httpapi

import (
	"context"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/heartbeat"
)

// Job is a job as the API and the command line show it.
type Job struct {
	Key     string            `json:"key"`
	Slot    int               `json:"slot" doc:"its slot, by the hash of its key"`
	Payload string            `json:"payload"`
	Labels  map[string]string `json:"labels"`
	Weight  int               `json:"weight" doc:"its share of the load"`
	Paused  bool              `json:"paused" doc:"nobody runs it"`
	Owner   *JobOwner         `json:"owner" doc:"who looks after it; null: nobody just now"`
}

// JobOwner is who looks after a job.
type JobOwner struct {
	Name     string `json:"member" doc:"the name of the member"`
	MemberID string `json:"member_id" doc:"its id"`
	Address  string `json:"address" doc:"of that member; may be empty"`
	Epoch    int64  `json:"epoch" doc:"the fencing token of the job's slot"`
}

// Jobs shows jobs.
func Jobs(infos []assign.Info) []Job {
	shown := make([]Job, 0, len(infos))
	for _, i := range infos {
		shown = append(shown, showJob(i))
	}
	return shown
}

func showJob(i assign.Info) Job {
	j := Job{Key: i.Key, Slot: i.Slot, Payload: i.Payload, Labels: i.Labels, Weight: i.Weight, Paused: i.Paused}
	if j.Labels == nil {
		j.Labels = map[string]string{}
	}
	if i.Owner.MemberID != "" {
		j.Owner = &JobOwner{i.Owner.Name, i.Owner.MemberID, i.Owner.Address, i.Owner.Epoch}
	}
	return j
}

// JobPage is a piece of a list of jobs.
type JobPage struct {
	Jobs []Job  `json:"jobs" nullable:"false" doc:"by key"`
	Next string `json:"next,omitempty" doc:"ask for what is after this key next; left out: there is no more"`
}

// ShowJobPage shows what was read with a limit.
func ShowJobPage(infos []assign.Info, limit int) JobPage {
	page := JobPage{Jobs: Jobs(infos)}
	if len(infos) == limit {
		page.Next = infos[limit-1].Key
	}
	return page
}

type jobsInput struct {
	GroupPath
	After string `query:"after" doc:"a key; left out, the list is shown from its beginning"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"1000" doc:"at most so many"`
}

type jobsOutput struct{ Body JobPage }

func (a *api) jobs(ctx context.Context, in *jobsInput) (*jobsOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	infos, err := assign.List(ctx, a.DB, in.Group, in.After, in.Limit)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &jobsOutput{ShowJobPage(infos, in.Limit)}, nil
}

type assignmentsInput struct {
	jobsInput
	Member string `query:"member" default:"me" doc:"the id of a member, or its name if no other living member bears that; me: this daemon's"`
}

// assignments are the jobs that one member looks after.
func (a *api) assignments(ctx context.Context, in *assignmentsInput) (*jobsOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	id, err := a.meant(ctx, in.Member)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	infos, err := assign.Owned(ctx, a.DB, in.Group, id, in.After, in.Limit)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &jobsOutput{ShowJobPage(infos, in.Limit)}, nil
}

// meant is the id of the member that a request means.
func (a *api) meant(ctx context.Context, member string) (string, error) {
	if member != "me" {
		m, err := a.find(ctx, member)
		return m.ID, err
	}
	s, err := a.session()
	if err != nil {
		return "", err
	}
	return s.ID(), nil
}

// JobSpec is what somebody says of a job.
type JobSpec struct {
	_       struct{}          `additionalProperties:"false"`
	Key     string            `json:"key"`
	Payload string            `json:"payload,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Weight  int               `json:"weight,omitempty" doc:"its share of the load; left out: 1"`
	Paused  bool              `json:"paused,omitempty" doc:"nobody is to run it"`
}

// Spec is the same for package assign.
func (j JobSpec) Spec() assign.Spec {
	return assign.Spec{Key: j.Key, Payload: j.Payload, Labels: j.Labels, Weight: j.Weight, Paused: j.Paused}
}

type addInput struct {
	GroupPath
	Body struct {
		_    struct{}  `additionalProperties:"false"`
		Jobs []JobSpec `json:"jobs" nullable:"false" minItems:"1" maxItems:"1000"`
	}
}

type addOutput struct {
	Body struct {
		Added int `json:"added" doc:"how many were not there before; those that were stay as they are"`
	}
}

func (a *api) addJobs(ctx context.Context, in *addInput) (*addOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var specs []assign.Spec
	for _, j := range in.Body.Jobs {
		specs = append(specs, j.Spec())
	}
	added, err := assign.AddBy(ctx, a.DB, []heartbeat.By{asked(ctx, "")}, in.Group, specs...)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	a.Logger.Info("jobs added", "group", in.Group, "first", specs[0].Key, "added", added, "of", len(specs), "actor", asked(ctx, "").Actor)
	out := &addOutput{}
	out.Body.Added = added
	return out, nil
}

// JobPath names a job.
type JobPath struct {
	GroupPath
	Key string `path:"key"`
}

// changed tells the log who has changed a job, as an event does.
func (a *api) changed(ctx context.Context, in JobPath, how string) {
	a.Logger.Info("job "+how, "group", in.Group, "key", in.Key, "actor", asked(ctx, "").Actor)
}

type jobOutput struct{ Body Job }

func (a *api) job(ctx context.Context, in *JobPath) (*jobOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	info, err := assign.Lookup(ctx, a.DB, in.Group, in.Key)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &jobOutput{showJob(info)}, nil
}

func (a *api) removeJob(ctx context.Context, in *JobPath) (*struct{}, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := assign.Remove(ctx, a.DB, in.Group, in.Key, asked(ctx, "")); err != nil {
		return nil, a.problem(ctx, err)
	}
	a.changed(ctx, *in, "removed")
	return nil, nil
}

type updateInput struct {
	JobPath
	Body struct {
		_       struct{}          `additionalProperties:"false"`
		Payload string            `json:"payload,omitempty"`
		Labels  map[string]string `json:"labels,omitempty"`
		Weight  int               `json:"weight,omitempty"`
		Paused  bool              `json:"paused,omitempty"`
	}
}

func (a *api) updateJob(ctx context.Context, in *updateInput) (*jobOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	b := in.Body
	spec := assign.Spec{Key: in.Key, Payload: b.Payload, Labels: b.Labels, Weight: b.Weight, Paused: b.Paused}
	if err := assign.Update(ctx, a.DB, in.Group, spec, asked(ctx, "")); err != nil {
		return nil, a.problem(ctx, err)
	}
	a.changed(ctx, in.JobPath, "updated")
	return a.job(ctx, &in.JobPath)
}

func (a *api) pauseJob(ctx context.Context, in *JobPath) (*jobOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := assign.Pause(ctx, a.DB, in.Group, in.Key, asked(ctx, "")); err != nil {
		return nil, a.problem(ctx, err)
	}
	a.changed(ctx, *in, "paused")
	return a.job(ctx, in)
}

func (a *api) resumeJob(ctx context.Context, in *JobPath) (*jobOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := assign.Resume(ctx, a.DB, in.Group, in.Key, asked(ctx, "")); err != nil {
		return nil, a.problem(ctx, err)
	}
	a.changed(ctx, *in, "resumed")
	return a.job(ctx, in)
}
