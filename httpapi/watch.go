package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
)

// Ping is how often a stream says that it is alive where it has nothing else to say. It also
// looks then whether its client is still allowed to listen.
const Ping = 15 * time.Second

type watchInput struct {
	LastEventID string   `header:"Last-Event-ID" doc:"the id of the last message that was dealt with; before after"`
	After       string   `query:"after" doc:"a revision; left out, the stream begins with the next event"`
	Topic       []string `query:"topic,explode" nullable:"false" maxItems:"16" doc:"of this topic; repeatable"`

	from int64 // -1: now
}

// Resolve reads where the stream begins.
func (in *watchInput) Resolve(huma.Context) []error {
	in.from = -1
	for _, given := range []struct{ where, revision string }{{"query.after", in.After}, {"header.Last-Event-ID", in.LastEventID}} {
		if given.revision == "" {
			continue
		}
		n, err := strconv.ParseInt(given.revision, 10, 64)
		if err != nil || n < 0 {
			return []error{&huma.ErrorDetail{Location: given.where, Message: "it must be a revision"}}
		}
		in.from = n
	}
	return checkTopics(in.Topic)
}

// watch streams events. Each message has the revision that the stream is resumed from as its id,
// the first one too, which has nothing else.
func (a *api) watch(ctx context.Context, in *watchInput) (*huma.StreamResponse, error) {
	if in.from < 0 {
		ctx, cancel := bounded(ctx)
		defer cancel()
		revision, err := events.Revision(ctx, a.DB)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		in.from = revision
	}
	if !a.enter() {
		return nil, problem("too_many_streams")
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer a.leave()
		r, w := humachi.Unwrap(ctx)
		header := w.Header()
		header.Set("Content-Type", "text/event-stream")
		header.Set("X-Accel-Buffering", "no") // nginx would hold messages back
		if r.Method == http.MethodHead {
			return
		}
		a.stream(r, &stream{w: w, control: http.NewResponseController(w)}, in)
	}}, nil
}

// stream sends events until there is a reason not to.
func (a *api) stream(r *http.Request, s *stream, in *watchInput) {
	ctx, cancel := context.WithCancel(r.Context())
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	feed := make(chan events.Event)
	var end error // why the feed was closed
	reader.Go(func() {
		defer close(feed)
		for e, err := range (events.Config{Logger: a.Logger}).Watch(ctx, a.DB, in.from, in.Topic...) {
			if end = err; err != nil {
				return
			}
			select {
			case feed <- e:
			case <-ctx.Done():
				return
			}
		}
	})
	ping := time.NewTicker(Ping)
	defer ping.Stop()
	err := s.send(message{id: in.from, first: true})
	for err == nil {
		select {
		case e, ok := <-feed:
			if !ok {
				a.finish(r.Context(), s, in.from, end)
				return
			}
			in.from = e.Revision
			err = s.send(message{id: e.Revision, event: "change", data: ShowEvent(e)})
		case <-ping.C:
			if who, known := a.identify(r); !known || !who.role.allows(Viewer) {
				return
			}
			err = s.ping()
		case <-a.life.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// finish says why a stream ends that nobody has ended. Where events are missing it gives the
// newest revision for the client to go on from, once it has read anew what it follows.
func (a *api) finish(ctx context.Context, s *stream, last int64, why error) {
	if why == nil {
		return
	}
	event, p := "problem", a.problem(ctx, why)
	if errors.Is(why, events.ErrCompacted) || errors.Is(why, coordd.ErrHistoryLost) {
		bound, cancel := bounded(ctx)
		defer cancel()
		newest, err := events.Revision(bound, a.DB)
		if err != nil {
			return // the client resumes, and is told then
		}
		event, last = "resync", newest
	}
	_ = s.send(message{id: last, event: event, data: p}) // fails only if the client has gone
}

// stream writes Server-Sent Events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// message is one of them.
type message struct {
	id    int64
	event string // empty: it has only an id
	data  any
	first bool
}

func (s *stream) send(m message) error {
	var b bytes.Buffer
	if m.first {
		b.WriteString("retry: 1000\n") // milliseconds
	}
	fmt.Fprintf(&b, "id: %d\n", m.id)
	if m.event != "" {
		data, err := json.Marshal(m.data) // on one line
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "event: %s\ndata: %s\n", m.event, data)
	}
	b.WriteString("\n")
	return s.write(b.Bytes())
}

func (s *stream) ping() error { return s.write([]byte(": ping\n\n")) }

// write cuts a client off that does not take what it is sent.
func (s *stream) write(b []byte) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.control.Flush()
}
