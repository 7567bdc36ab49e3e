package main

import (
	"context"

	"github.com/coordd/coordd/assign"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
)

func (d direct) Groups(ctx context.Context) ([]httpapi.Group, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	groups, err := assign.Groups(ctx, d.db)
	return httpapi.Groups(groups), err
}

func (d direct) Group(ctx context.Context, name string) (httpapi.Group, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	g, err := assign.Find(ctx, d.db, name)
	return httpapi.Groups([]assign.Group{g})[0], err
}

func (d direct) Define(ctx context.Context, g httpapi.Group) (httpapi.Group, error) {
	ctx, cancel := context.WithTimeout(ctx, manyWithin)
	defer cancel()
	if err := assign.Define(ctx, d.db, g.Group(), onBehalf("")); err != nil {
		return httpapi.Group{}, err
	}
	return d.Group(ctx, g.Name)
}

func (d direct) Shares(ctx context.Context, group string) ([]httpapi.Share, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	shares, err := assign.Shares(ctx, d.db, group)
	return httpapi.Shares(shares), err
}

func (d direct) Preview(ctx context.Context, group string, without, with []string) (httpapi.Preview, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	moves, err := assign.Preview(ctx, d.db, group, without, with)
	return httpapi.ShowPreview(moves), err
}

func (d direct) Jobs(ctx context.Context, group, after string, limit int) (httpapi.JobPage, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	jobs, err := assign.List(ctx, d.db, group, after, limit)
	return httpapi.ShowJobPage(jobs, limit), err
}

func (d direct) Job(ctx context.Context, group, key string) (httpapi.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	job, err := assign.Lookup(ctx, d.db, group, key)
	return httpapi.Jobs([]assign.Info{job})[0], err
}

func (d direct) AddJobs(ctx context.Context, group string, jobs []httpapi.JobSpec) (added int, err error) {
	ctx, cancel := context.WithTimeout(ctx, manyWithin)
	defer cancel()
	specs := make([]assign.Spec, 0, len(jobs))
	for _, j := range jobs {
		specs = append(specs, j.Spec())
	}
	return assign.AddBy(ctx, d.db, []heartbeat.By{onBehalf("")}, group, specs...)
}

func (d direct) RemoveJob(ctx context.Context, group, key string) error {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	return assign.Remove(ctx, d.db, group, key, onBehalf(""))
}

func (d direct) PauseJob(ctx context.Context, group, key string) error {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	return assign.Pause(ctx, d.db, group, key, onBehalf(""))
}

func (d direct) ResumeJob(ctx context.Context, group, key string) error {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	return assign.Resume(ctx, d.db, group, key, onBehalf(""))
}
