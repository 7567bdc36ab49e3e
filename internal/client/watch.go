package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coordd/coordd/httpapi"
)

// silence is how long a stream may say nothing, not even a ping, before it is taken for dead.
const silence = 3 * httpapi.Ping

var errSilent = fmt.Errorf("it has said nothing for %v", silence)

// mostOfLine is the longest line that a stream may have.
const mostOfLine = 4 << 20

// Watch yields every event after a revision, of the given topics or of all, each once and in
// order, and waits for more until ctx ends; below 0 it begins with the next event. A stream
// that breaks is resumed where it was. Its errors are those of the first connection, that events are
// missing (events.ErrCompacted, coordd.ErrHistoryLost), and what no waiting mends; an error
// is the last thing that it yields.
func (c *Client) Watch(ctx context.Context, from int64, topics ...string) iter.Seq2[httpapi.Event, error] {
	return func(yield func(httpapi.Event, error) bool) {
		w := &watch{client: c, topics: topics, position: from, yield: yield}
		for {
			err := w.stream(ctx)
			switch {
			case w.left || ctx.Err() != nil:
				return
			case w.final(err):
				yield(httpapi.Event{}, err)
				return
			}
			if !w.rest(ctx) {
				return
			}
		}
	}
}

// watch is one loop over Watch.
type watch struct {
	client *Client
	topics []string
	yield  func(httpapi.Event, error) bool

	position  int64 // everything up to here was yielded
	connected bool  // a stream has begun once
	left      bool  // the caller wants no more
	pause     time.Duration
}

// errOver is a stream's last message that says that it ends and is not to be resumed.
type errOver struct{ error }

func (e errOver) Unwrap() error { return e.error }

// final tells what trying again does not mend.
func (w *watch) final(err error) bool {
	var over errOver
	var p *httpapi.Problem
	return !w.connected || errors.As(err, &over) || errors.As(err, &p) && p.Status < http.StatusInternalServerError
}

// rest pauses before the next try, for longer each time nothing was heard, and differently for
// everybody.
func (w *watch) rest(ctx context.Context) bool {
	const least, most = 50 * time.Millisecond, 5 * time.Second
	w.pause = min(max(2*w.pause, least), most)
	timer := time.NewTimer(w.pause/2 + rand.N(w.pause))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// stream reads one stream to its end.
func (w *watch) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := w.client.request(ctx, http.MethodGet, "/v1/watch", url.Values{"topic": w.topics}, nil)
	if err != nil {
		return errOver{err}
	}
	if w.position >= 0 {
		r.Header.Set("Last-Event-ID", strconv.FormatInt(w.position, 10))
	}
	quiet := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer quiet.Stop()
	resp, err := w.client.send(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, mostOfLine)
	m := message{}
	for lines.Scan() {
		quiet.Reset(silence)
		if line := lines.Text(); line != "" {
			m.add(line)
			continue
		}
		if err := w.take(m); err != nil || w.left {
			return err
		}
		m = message{}
	}
	if err := lines.Err(); err != nil {
		return w.client.fault(ctx, err)
	}
	return w.client.fault(ctx, io.EOF)
}

// message is one Server-Sent Event.
type message struct{ id, event, data string }

// add takes a line of it. Comments and fields that it does not know mean nothing.
func (m *message) add(line string) {
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "id":
		m.id = value
	case "event":
		m.event = value
	case "data":
		m.data += value
	}
}

// take deals with a whole message.
func (w *watch) take(m message) error {
	w.connected, w.pause = true, 0
	id, err := strconv.ParseInt(m.id, 10, 64)
	switch {
	case m.id == "": // a ping
		return nil
	case err != nil:
		return fmt.Errorf("%s: the stream has an id that is no revision", w.client.base.Host)
	case m.event == "change":
		if id <= w.position {
			return nil
		}
		var e httpapi.Event
		if err := json.Unmarshal([]byte(m.data), &e); err != nil {
			return errOver{fmt.Errorf("%s: an event that is not understood: %w", w.client.base.Host, err)}
		}
		w.position = id
		w.left = !w.yield(e, nil)
		return nil
	case m.event == "resync", m.event == "problem":
		p := new(httpapi.Problem)
		if err := json.Unmarshal([]byte(m.data), p); err != nil {
			return errOver{fmt.Errorf("%s: the stream ends for a reason that is not understood: %w", w.client.base.Host, err)}
		}
		return errOver{fmt.Errorf("%s: after revision %d: %w", w.client.base.Host, w.position, p)}
	}
	w.position = max(w.position, id)
	return nil
}
