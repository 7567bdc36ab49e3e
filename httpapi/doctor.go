package httpapi

import (
	"context"
	"time"
)

// Finding is what the doctor says of one thing that it has examined.
type Finding struct {
	Name    string `json:"name" doc:"of what was examined"`
	Verdict string `json:"verdict" enum:"ok,warning,failed"`
	Found   string `json:"found" doc:"figures with their units"`
	Fix     string `json:"fix" doc:"what to do; empty where there is nothing to do"`
}

// The verdicts of a [Finding].
const (
	OK      = "ok"
	Warning = "warning"
	Failed  = "failed"
)

// doctorTimeout is how long an examination may take.
const doctorTimeout = 20 * time.Second

type doctorOutput struct {
	Body struct {
		Findings []Finding `json:"findings" nullable:"false"`
	}
}

// doctor examines. One examination runs at a time, as it asks the database a good deal.
func (a *api) doctor(ctx context.Context, _ *struct{}) (*doctorOutput, error) {
	if a.Doctor == nil {
		return nil, problem("not_available")
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	select {
	case a.examining <- struct{}{}:
		defer func() { <-a.examining }()
	case <-ctx.Done():
		return nil, a.problem(ctx, ctx.Err())
	}
	findings, err := a.Doctor(ctx)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := new(doctorOutput)
	out.Body.Findings = append([]Finding{}, findings...)
	return out, nil
}

type configOutput struct{ Body any }

func (a *api) config(context.Context, *struct{}) (*configOutput, error) {
	if a.Settings == nil {
		return nil, problem("not_available")
	}
	return &configOutput{a.Settings()}, nil
}
