// Package client speaks to a daemon's HTTP interface. It is for coordd's own command line, which
// works the same on a database and on a daemon: what the daemon refuses is, by errors.Is, the
// error of coordd that the database would have given.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
)

// ErrNoDaemon says that no daemon answers at the address.
var ErrNoDaemon = errors.New("the daemon cannot be reached")

// Config says where the daemon is. Only Addr is needed.
type Config struct {
	Addr  string      // host:port, or with http:// or https:// before it
	Token string      // empty: none is sent
	TLS   *tls.Config // for https; nil trusts what the system trusts
}

// Client is a daemon, seen from outside. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// New makes a client and connects to nothing yet. It fails with [coordd.ErrInvalid]. Close it.
func New(cfg Config) (*Client, error) {
	address := cfg.Addr
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || strings.Trim(base.Path, "/") != "" || base.User != nil || base.RawQuery != "" {
		return nil, fmt.Errorf("%w: the address of a daemon is host:port, or https://host:port", coordd.ErrInvalid)
	}
	base.Path = ""
	if cfg.Token != "" && base.Scheme == "http" && !local(base.Hostname()) {
		return nil, fmt.Errorf("%w: a token is not sent to %s in the clear: use https://", coordd.ErrInvalid, base.Host)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = cfg.TLS
	transport.ResponseHeaderTimeout = answerWithin + longestWait
	return &Client{base: base, token: cfg.Token, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close gives up connections that are kept for the next call.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// How long a daemon may take to answer beside what it was asked to wait, and how much.
const (
	answerWithin = 30 * time.Second
	longestWait  = 30 * time.Second
	mostBytes    = 64 << 20
)

// Members lists those members that a filter shows.
func (c *Client) Members(ctx context.Context, f httpapi.Filter) ([]httpapi.Member, error) {
	q := url.Values{"state": f.State, "label": f.Label}
	if f.Name != "" {
		q.Set("name", f.Name)
	}
	if f.All {
		q.Set("all", "true")
	}
	if f.Clients {
		q.Set("clients", "true")
	}
	var body struct{ Members []httpapi.Member }
	err := c.get(ctx, "/v1/members", q, &body)
	return body.Members, err
}

// Member is one member, by its id or by a name that only it bears. It fails with
// [coordd.ErrNone] or, where several may be meant, [coordd.ErrInvalid].
func (c *Client) Member(ctx context.Context, which string) (m httpapi.Member, err error) {
	err = c.get(ctx, "/v1/members/"+url.PathEscape(which), nil, &m)
	return m, err
}

// Drain asks a member to hand over its leaderships and jobs, and returns it. One that drains already is
// left as it is. It fails with [coordd.ErrNone] where there is no such member or it is in a state
// from which it cannot be drained. The reason is recorded.
func (c *Client) Drain(ctx context.Context, which, reason string) (httpapi.Member, error) {
	return c.operate(ctx, "drain", which, reason)
}

// Undrain takes Drain back, with the same errors.
func (c *Client) Undrain(ctx context.Context, which, reason string) (httpapi.Member, error) {
	return c.operate(ctx, "undrain", which, reason)
}

// Forget condemns a member, with the same errors.
func (c *Client) Forget(ctx context.Context, which, reason string) (httpapi.Member, error) {
	return c.operate(ctx, "forget", which, reason)
}

func (c *Client) operate(ctx context.Context, operation, which, reason string) (m httpapi.Member, err error) {
	body, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		return m, err
	}
	r, err := c.request(ctx, http.MethodPost, "/v1/members/"+url.PathEscape(which)+"/"+operation, nil, body)
	if err != nil {
		return m, err
	}
	err = c.do(r, 0, &m)
	return m, err
}

// Query says which events are asked for.
type Query struct {
	After int64         // a revision; below 0: from the oldest that is kept
	Limit int           // 0: 100
	Wait  time.Duration // for an event where there is none yet
	Topic []string      // empty: all
}

// Events reads a page of the log. It fails with events.ErrCompacted and [coordd.ErrHistoryLost].
func (c *Client) Events(ctx context.Context, query Query) (page httpapi.EventPage, err error) {
	q := url.Values{"topic": query.Topic}
	if query.After >= 0 {
		q.Set("after", strconv.FormatInt(query.After, 10))
	}
	if query.Limit != 0 {
		q.Set("limit", strconv.Itoa(query.Limit))
	}
	if query.Wait != 0 {
		q.Set("wait", query.Wait.String())
	}
	r, err := c.request(ctx, http.MethodGet, "/v1/events", q, nil)
	if err != nil {
		return page, err
	}
	err = c.do(r, query.Wait, &page)
	return page, err
}

// Status asks the daemon for its status.
func (c *Client) Status(ctx context.Context) (s httpapi.Status, err error) {
	err = c.get(ctx, "/v1/status", nil, &s)
	return s, err
}

// Doctor has the daemon examine its database.
func (c *Client) Doctor(ctx context.Context) ([]httpapi.Finding, error) {
	var body struct{ Findings []httpapi.Finding }
	err := c.get(ctx, "/v1/doctor", nil, &body)
	return body.Findings, err
}

func (c *Client) get(ctx context.Context, path string, q url.Values, into any) error {
	r, err := c.request(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return err
	}
	return c.do(r, 0, into)
}

func (c *Client) request(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base.String()+path+"?"+q.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", coordd.ErrInvalid, err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	return r, nil
}

// do sends a request that may wait, and reads its answer.
func (c *Client) do(r *http.Request, wait time.Duration, into any) error {
	ctx, cancel := context.WithTimeout(r.Context(), answerWithin+wait)
	defer cancel()
	return c.exchange(r.WithContext(ctx), into)
}

// exchange sends a request and reads its answer, for as long as its context lasts.
func (c *Client) exchange(r *http.Request, into any) error {
	resp, err := c.send(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, mostBytes)).Decode(into); err != nil {
		return c.fault(r.Context(), fmt.Errorf("its answer breaks off or is no JSON: %w", err))
	}
	drain(resp)
	return nil
}

// drain reads what is left of an answer, or its connection would be closed.
func drain(resp *http.Response) { _, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10)) }

// send sends a request and refuses an answer that is an error.
func (c *Client) send(r *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.fault(r.Context(), err)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNoContent {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	p := new(httpapi.Problem)
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(p)
	drain(resp)
	if err != nil || p.Code == "" {
		return nil, fmt.Errorf("%s: it answers %s, and not as a coordd does", c.base.Host, resp.Status)
	}
	return nil, fmt.Errorf("%s: %w", c.base.Host, p)
}

// fault says that there is no answer, and why.
func (c *Client) fault(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
		return cause
	} else if cause != nil {
		err = cause
	} else if end, some := ctx.Deadline(); some && !time.Now().Before(end) {
		err = context.DeadlineExceeded // the connection looks at the clock too, and may be first
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return fmt.Errorf("%s: %w: %w", c.base.Host, ErrNoDaemon, err)
}
