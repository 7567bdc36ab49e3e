package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/coordd/coordd/httpapi"
)

func groupPath(group string) string { return "/v1/groups/" + url.PathEscape(group) }

func jobPath(group, key string) string { return groupPath(group) + "/jobs/" + url.PathEscape(key) }

// Groups lists the groups of jobs.
func (c *Client) Groups(ctx context.Context) ([]httpapi.Group, error) {
	var body struct{ Groups []httpapi.Group }
	err := c.get(ctx, "/v1/groups", nil, &body)
	return body.Groups, err
}

// Group is one group of jobs.
func (c *Client) Group(ctx context.Context, name string) (g httpapi.Group, err error) {
	err = c.get(ctx, groupPath(name), nil, &g)
	return g, err
}

// Define makes a group, or, if it is there, replaces its strategy and all of its options: those
// that are zero become the defaults. It keeps its number of slots, and fails with
// [coordd.ErrInvalid] where another one than that, or 0, is said.
func (c *Client) Define(ctx context.Context, g httpapi.Group) (defined httpapi.Group, err error) {
	options := map[string]any{}
	for name, value := range map[string]int64{"slots": int64(g.Slots), "move_cap": int64(g.MoveCap), "gather_ms": g.GatherMS, "restart_grace_ms": g.RestartGraceMS, "obey_ms": g.ObeyMS} {
		if value != 0 {
			options[name] = value
		}
	}
	if g.Strategy != "" {
		options["strategy"] = g.Strategy
	}
	if g.Selector != nil {
		options["selector"] = g.Selector
	}
	err = c.change(ctx, http.MethodPut, groupPath(g.Name), options, &defined)
	return defined, err
}

// Shares tells what each member has of a group.
func (c *Client) Shares(ctx context.Context, group string) ([]httpapi.Share, error) {
	var body struct{ Shares []httpapi.Share }
	err := c.get(ctx, groupPath(group)+"/shares", nil, &body)
	return body.Shares, err
}

// Preview tells what would move if some members were gone and others came.
func (c *Client) Preview(ctx context.Context, group string, without, with []string) (p httpapi.Preview, err error) {
	err = c.get(ctx, groupPath(group)+"/preview", url.Values{"without": without, "with": with}, &p)
	return p, err
}

// Jobs is a page of a group's jobs, those after a key.
func (c *Client) Jobs(ctx context.Context, group, after string, limit int) (page httpapi.JobPage, err error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if after != "" {
		q.Set("after", after)
	}
	err = c.get(ctx, groupPath(group)+"/jobs", q, &page)
	return page, err
}

// Job is one job.
func (c *Client) Job(ctx context.Context, group, key string) (j httpapi.Job, err error) {
	err = c.get(ctx, jobPath(group, key), nil, &j)
	return j, err
}

// AddJobs adds jobs and says how many were not there before.
func (c *Client) AddJobs(ctx context.Context, group string, jobs []httpapi.JobSpec) (added int, err error) {
	var body struct{ Added int }
	err = c.change(ctx, http.MethodPost, groupPath(group)+"/jobs", map[string]any{"jobs": jobs}, &body)
	return body.Added, err
}

// RemoveJob removes a job.
func (c *Client) RemoveJob(ctx context.Context, group, key string) error {
	return c.change(ctx, http.MethodDelete, jobPath(group, key), nil, nil)
}

// PauseJob has nobody run a job.
func (c *Client) PauseJob(ctx context.Context, group, key string) error {
	return c.change(ctx, http.MethodPost, jobPath(group, key)+"/pause", nil, nil)
}

// ResumeJob has a paused job run again.
func (c *Client) ResumeJob(ctx context.Context, group, key string) error {
	return c.change(ctx, http.MethodPost, jobPath(group, key)+"/resume", nil, nil)
}

// change sends something to be changed.
func (c *Client) change(ctx context.Context, method, path string, body, into any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := c.request(ctx, method, path, nil, b)
	if err != nil {
		return err
	}
	return c.do(r, 0, into)
}
