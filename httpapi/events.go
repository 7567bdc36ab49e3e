package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/coordd/coordd/events"
	"github.com/coordd/coordd/internal/journal"
	"github.com/coordd/coordd/internal/name"
)

// Event is a change as the API and the command line show it.
type Event struct {
	Revision int64           `json:"revision" doc:"grows from event to event in the order of their commits"`
	At       time.Time       `json:"at" doc:"by the database's clock"`
	Topic    string          `json:"topic" doc:"what kind of thing has changed, as member; audit: who asked for it"`
	Subject  string          `json:"subject" doc:"its name"`
	Action   string          `json:"action" doc:"what has happened to it"`
	MemberID string          `json:"member_id" doc:"of the member that it happened to, or that did it; may be empty"`
	Data     json.RawMessage `json:"data" doc:"the thing after the change, or as it last was"`
}

// ShowEvent shows an event.
func ShowEvent(e events.Event) Event {
	data := json.RawMessage(e.Data)
	if !json.Valid(data) {
		data, _ = json.Marshal(e.Data) // a string can always be said
	}
	return Event{e.Revision, e.At, e.Topic, e.Subject, e.Action, e.MemberID, data}
}

// maxWait is how long a request may wait for events.
const maxWait = 30 * time.Second

type eventsInput struct {
	After int64    `query:"after" minimum:"0" doc:"a revision; left out, the oldest event that is kept comes first"`
	Limit int      `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"events at most"`
	Topic []string `query:"topic,explode" nullable:"false" maxItems:"16" doc:"of this topic; repeatable"`
	Wait  string   `query:"wait" example:"30s" doc:"how long to wait for an event where there is none yet; 30s at most"`

	wait   time.Duration
	oldest bool
}

// Resolve reads what is no simple number.
func (in *eventsInput) Resolve(ctx huma.Context) []error {
	in.oldest = ctx.Query("after") == ""
	if in.Wait != "" {
		d, err := time.ParseDuration(in.Wait)
		if err != nil || d < 0 || d > maxWait {
			return []error{&huma.ErrorDetail{Location: "query.wait", Message: "it must be a time between 0s and 30s"}}
		}
		in.wait = d
	}
	return checkTopics(in.Topic)
}

func checkTopics(topics []string) []error {
	for _, t := range topics {
		if name.Check("topic", t) != nil {
			return []error{&huma.ErrorDetail{Location: "query.topic", Message: "it must be a name, as member"}}
		}
	}
	return nil
}

// EventPage is a piece of the log.
type EventPage struct {
	Events []Event `json:"events" nullable:"false" doc:"in the order of their revisions"`
	Next   int64   `json:"next" doc:"ask for what is after this revision next"`
}

type eventsOutput struct{ Body EventPage }

func (a *api) events(ctx context.Context, in *eventsInput) (*eventsOutput, error) {
	page, err := a.page(ctx, in)
	if err == nil && len(page.Events) == 0 && in.wait > 0 {
		page, err = a.await(ctx, in, page.Next)
	}
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := &eventsOutput{EventPage{Events: make([]Event, 0, len(page.Events)), Next: page.Next}}
	for _, e := range page.Events {
		out.Body.Events = append(out.Body.Events, ShowEvent(events.Event(e)))
	}
	return out, nil
}

// page reads the events that are there.
func (a *api) page(ctx context.Context, in *eventsInput) (journal.Page, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	page, err := journal.Read(ctx, a.DB.Queries, in.After, in.Limit, in.Topic...)
	for in.oldest && errors.Is(err, events.ErrCompacted) { // and again if they are being deleted
		page, err = journal.Read(ctx, a.DB.Queries, page.Compacted, in.Limit, in.Topic...)
	}
	return page, err
}

// await waits until there is an event after a revision, the wait is over or the daemon ends,
// and reads what is there then.
func (a *api) await(ctx context.Context, in *eventsInput, after int64) (journal.Page, error) {
	if !a.enter() {
		return journal.Page{}, problem("too_many_streams")
	}
	defer a.leave()
	waiting, cancel := context.WithTimeout(ctx, in.wait)
	defer cancel()
	defer context.AfterFunc(a.life, cancel)()
	for _, err := range events.Watch(waiting, a.DB, after, in.Topic...) {
		if err != nil {
			return journal.Page{}, err
		}
		break
	}
	then := *in
	then.After, then.oldest = after, false
	return a.page(ctx, &then)
}

// enter takes a place among those who wait for events, if there is one; leave gives it back.
func (a *api) enter() bool {
	select {
	case a.streams <- struct{}{}:
		return true
	default:
		return false
	}
}

func (a *api) leave() { <-a.streams }
