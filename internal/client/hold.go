package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/lock"
)

// Want is a lock, or a leadership, that is asked for. It needs one of the two names.
type Want struct {
	Lock     string
	Shared   bool // others may share the lock
	Permits  int  // so many may hold the lock; 0: it is no semaphore
	Election string
	Priority int           // before those of a lower one who wait to lead
	Value    string        // published with the leadership; 8 KiB at the most, as it stands in a URL
	TTL      time.Duration // it is given back when it was not renewed for so long, 1 s to 1 m; 0 means 10 s
	NoWait   bool          // it is had now or not
}

func (w Want) String() string {
	if w.Election != "" {
		return fmt.Sprintf("election %q", w.Election)
	}
	return fmt.Sprintf("lock %q", w.Lock)
}

// mostQuery is how long what is asked for may be, in bytes of a URL. A daemon reads 16 KiB of a request before its body.
const mostQuery = 12 << 10

// ErrReleased is why the context of a right has ended that was released.
var ErrReleased = lock.ErrReleased

// Held is a lock, or a leadership, that a daemon holds for this process. It is renewed for as long as it is held, and is
// counted on for what the latest answer promised, from when that was asked for; package rights says why. It is safe for
// concurrent use.
//
// Where the daemon is on this host the right is tied to the one connection on which it is renewed: it is free
// as soon as that ends, as it does with this process and whoever else keeps it open.
type Held struct {
	want   Want
	client *Client // with a connection of its own
	under  string  // the path, without an id
	path   string
	query  url.Values
	token  int64
	member string
	said   string // this end of the connection, as it was told
	now    func() time.Duration

	ctx      context.Context
	end      context.CancelCauseFunc
	renewals sync.WaitGroup
	once     sync.Once

	mu    sync.Mutex
	tied  bool
	only  bool          // no other connection will do any more
	conn  net.Conn      // the latest
	ready net.Conn      // that it is, and nothing was sent on it yet
	sent  time.Duration // when the renewal was sent that was answered last
	until time.Duration // for so long it may be counted on
	why   error         // the latest renewal failed
}

// Hold waits its turn for a lock or a leadership, until ctx ends, and renews it until it is released or lost. A
// daemon that is away for a while, once it has answered, ends no wait.
//
// It fails with [ErrNoDaemon] if there is none, with [coordd.ErrHeld] if it is not to wait and somebody else has it, with
// what the daemon refuses for good, and with ctx's cause.
func (c *Client) Hold(ctx context.Context, want Want) (*Held, error) {
	h, err := c.begin(ctx, want)
	if err != nil {
		return nil, err
	}
	if err := h.acquire(ctx); err != nil {
		_ = h.leave(ctx) // it is not renewed
		return nil, h.explain(err)
	}
	h.ctx, h.end = context.WithCancelCause(context.WithoutCancel(ctx))
	h.renewals.Go(h.renew)
	h.renewals.Go(h.expire)
	return h, nil
}

// begin prepares for one who holds.
func (c *Client) begin(ctx context.Context, want Want) (*Held, error) {
	if (want.Lock == "") == (want.Election == "") {
		return nil, fmt.Errorf("%w: a lock, or an election, needs a name", coordd.ErrInvalid)
	}
	h := &Held{want: want, client: c.alone(), query: url.Values{}, tied: local(c.base.Hostname()), now: clock.Of(ctx)}
	transport := h.client.http.Transport.(*http.Transport)
	transport.DialContext = h.dial
	if want.TTL != 0 {
		h.query.Set("ttl", want.TTL.String())
	}
	if want.Election != "" {
		h.under = "/v1/elections/" + url.PathEscape(want.Election) + "/campaigns/"
		h.query.Set("priority", strconv.Itoa(want.Priority))
		h.query.Set("value", want.Value)
	} else {
		h.under = "/v1/locks/" + url.PathEscape(want.Lock) + "/grants/"
	}
	h.rename()
	if want.Shared {
		h.query.Set("shared", "true")
	}
	if want.Permits != 0 {
		h.query.Set("permits", strconv.Itoa(want.Permits))
	}
	if len(h.query.Encode()) > mostQuery {
		return nil, fmt.Errorf("%s: %w: a daemon takes no value so long in a URL", want, coordd.ErrInvalid)
	}
	return h, nil
}

// rename draws another id. What was sent under the old one and comes late concerns nothing that is had under this one.
func (h *Held) rename() { h.path = h.under + uuid.NewString() }

// alone is the same client with one connection, of its own.
func (c *Client) alone() *Client {
	transport := c.http.Transport.(*http.Transport).Clone()
	transport.MaxConnsPerHost, transport.IdleConnTimeout, transport.ResponseHeaderTimeout = 1, 0, 0
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true) // where a connection is one client's
	if transport.TLSClientConfig != nil {
		transport.TLSClientConfig.NextProtos = nil // HTTP/2 stands there since the first was made
	}
	own := *c
	own.http = &http.Client{Transport: transport, CheckRedirect: c.http.CheckRedirect}
	return &own
}

// dial opens the connection. To renew on another what is tied to one would leave those behind who keep that open: when it has
// ended, so has the right.
func (h *Held) dial(ctx context.Context, network, address string) (net.Conn, error) {
	h.mu.Lock()
	ready, only := h.ready, h.only
	h.ready = nil
	h.mu.Unlock()
	switch {
	case only:
		return nil, fmt.Errorf("%w: the connection has ended to which it was tied", coordd.ErrLost)
	case ready != nil:
		return ready, nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn = conn
	return conn, err
}

// localEnd is this end of the connection, by which the daemon knows whether something relays it.
func (h *Held) localEnd(ctx context.Context) (string, error) {
	h.mu.Lock()
	conn := h.conn
	h.mu.Unlock()
	if conn == nil {
		base := h.client.base
		address := net.JoinHostPort(base.Hostname(), cmp.Or(base.Port(), map[string]string{"http": "80", "https": "443"}[base.Scheme]))
		var err error
		if conn, err = h.dial(ctx, "tcp", address); err != nil {
			return "", err
		}
		h.mu.Lock()
		h.ready = conn
		h.mu.Unlock()
	}
	return conn.LocalAddr().String(), nil
}

// Connection is what ends this right with it; nil: it is tied to none.
func (h *Held) Connection() syscall.Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if conn, ok := h.conn.(syscall.Conn); ok && h.tied {
		return conn
	}
	return nil
}

// acquire asks until the right can be counted on.
func (h *Held) acquire(ctx context.Context) error {
	for answered, refused := false, false; ; {
		renewal, began := h.token != 0, h.now()
		bounded, cancel := context.WithTimeout(ctx, answerWithin+h.wait())
		err := h.put(bounded)
		cancel()
		if err == nil && (renewal || h.want.NoWait) && h.Remaining() > 0 {
			h.mu.Lock()
			h.only = h.tied
			h.mu.Unlock()
			return nil
		}
		var p *httpapi.Problem
		known, again := errors.As(err, &p), refused
		refused = known && p.Code == "tie_refused"
		if err == nil {
			continue // after a wait, in which what was promised may have passed
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case refused:
			h.mu.Lock()
			h.tied = !again && h.conn != nil && h.said != h.conn.LocalAddr().String() // or there is something in between
			h.mu.Unlock()
			continue
		case known && p.Status == http.StatusGone: // as soon as it was had
			_ = h.giveUp(ctx) // or it is not renewed
			h.token = 0
			h.rename()
		case h.want.NoWait, known && !passes(p), !known && !answered:
			return err
		}
		answered = answered || p != nil
		if h.now()-began < retry { // it does not wait
			pause(ctx, retry)
		}
	}
}

// wait is how long the next request is to wait for its turn.
func (h *Held) wait() time.Duration {
	if h.token == 0 && !h.want.NoWait {
		return longestWait
	}
	return 0
}

func (h *Held) isTied() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tied
}

// Token is the fencing token, or the term: greater than that of every grant before.
func (h *Held) Token() int64 { return h.token }

// Member is the id of the member whose session holds it.
func (h *Held) Member() string { return h.member }

// Context ends when the right does; context.Cause says why.
func (h *Held) Context() context.Context { return h.ctx }

// Remaining is for how long others cannot have the right, if it is not released.
func (h *Held) Remaining() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(0, h.until-h.now())
}

// Err says why the right has ended: it is [coordd.ErrLost], or [ErrReleased]; nil: it has not.
func (h *Held) Err() error {
	if err := context.Cause(h.ctx); err != nil {
		return err
	}
	if h.Remaining() == 0 { // which nobody has seen yet
		return h.lapsed()
	}
	return nil
}

// Release gives the right back. Call it once the work under it has returned, also if it was lost.
// Further calls do nothing. It ignores the cancellation of ctx. An error says that the daemon did not answer: the right is
// free when it was not renewed for its TTL, or with its connection.
func (h *Held) Release(ctx context.Context) (err error) {
	h.once.Do(func() {
		h.end(ErrReleased)
		h.renewals.Wait()
		err = h.leave(ctx)
	})
	return err
}

// leave tells the daemon that nothing is wanted any more, and ends the connection.
func (h *Held) leave(ctx context.Context) error {
	defer h.client.Close()
	h.mu.Lock()
	h.only = false
	h.mu.Unlock()
	return h.giveUp(ctx)
}

func (h *Held) giveUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	r, err := h.client.request(ctx, http.MethodDelete, h.path, nil, nil)
	if err != nil {
		return err
	}
	resp, err := h.client.send(r)
	if err == nil {
		return resp.Body.Close()
	}
	if errors.Is(err, coordd.ErrNone) || errors.Is(err, coordd.ErrLost) {
		return nil
	}
	return fmt.Errorf("%s is not given back: %w", h.want, err)
}

// farewell is how long the daemon is waited for to give something back.
const farewell = 5 * time.Second

// explain says in the words of who has the database what the daemon refuses.
func (h *Held) explain(err error) error {
	var p *httpapi.Problem
	if !errors.As(err, &p) {
		return err
	}
	switch p.Code {
	case "held":
		held := &lock.HeldError{Name: h.want.Lock + h.want.Election, Sharing: p.Sharing, Waiting: p.Waiting}
		if by := p.Holder; by != nil {
			held.Holder, held.Member, held.Address, held.Client, held.Token, held.Since = by.MemberID, by.Name, by.Address, by.Client, by.Token, by.Since
		}
		return fmt.Errorf("%s: %w", h.want, held)
	case "requested":
		return fmt.Errorf("%s: %w: %w", h.want, coordd.ErrLost, &lock.RequestedError{By: p.By, Reason: p.Reason})
	case "lost":
		return fmt.Errorf("%s: %w: %s", h.want, coordd.ErrLost, p.Detail)
	}
	return fmt.Errorf("%s: %w", h.want, err)
}
