package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
)

// passes says whether what the daemon refuses now it may grant later.
func passes(p *httpapi.Problem) bool {
	return p.Code == "held" || p.Status == http.StatusServiceUnavailable || p.Status == http.StatusGatewayTimeout
}

// retry is the pause before what was refused is asked for again.
const retry = 500 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// put takes the right, or renews it, and counts from before it sends.
func (h *Held) put(ctx context.Context) error {
	q, wait := url.Values{}, h.wait()
	for key, value := range h.query {
		q[key] = value
	}
	if wait > 0 {
		q.Set("wait", wait.String())
	}
	if h.isTied() {
		end, err := h.localEnd(ctx)
		if err != nil {
			return h.client.fault(ctx, err)
		}
		h.said = end
		q.Set("tie", end)
	}
	r, err := h.client.request(ctx, http.MethodPut, h.path, q, nil)
	if err != nil {
		return err
	}
	if h.token != 0 {
		r.Header.Set("If-Match", fmt.Sprintf(`"%d"`, h.token))
	}
	var got struct {
		Token, Term int64 // one of them
		ValidMS     int64 `json:"valid_ms"`
		Member      string
	}
	sent := h.now()
	if err := h.client.exchange(r, &got); err != nil {
		return err
	}
	token := cmp.Or(got.Token, got.Term)
	if h.token != 0 && h.token != token {
		return fmt.Errorf("%w: it was renewed under another token", coordd.ErrLost)
	}
	if h.token == 0 {
		h.token, h.member = token, got.Member
	}
	if wait > 0 {
		return nil // it is counted on from a renewal that is sent now
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent, h.until = sent, max(h.until, sent+time.Duration(got.ValidMS)*time.Millisecond)
	return nil
}

// renew renews the right when a third of its time has passed, and again and again while that fails.
func (h *Held) renew() {
	for h.ctx.Err() == nil {
		h.mu.Lock()
		sent, until := h.sent, h.until
		h.mu.Unlock()
		pause(h.ctx, sent+(until-sent)/3-h.now())
		for h.ctx.Err() == nil {
			left := until - h.now()
			err := h.attempt(left)
			h.mu.Lock()
			h.why = err
			h.mu.Unlock()
			if err == nil {
				break
			}
			if errors.Is(err, coordd.ErrLost) {
				h.end(h.explain(err))
			}
			pause(h.ctx, max(left/20, 10*time.Millisecond))
		}
	}
}

// attempt is one renewal. To give up a connection to which the right is tied would give up the right; any other may have
// broken, and is not waited for to the end.
func (h *Held) attempt(left time.Duration) error {
	if h.isTied() {
		return h.put(h.ctx)
	}
	ctx, cancel := context.WithTimeout(h.ctx, max(left/3, 100*time.Millisecond))
	defer cancel()
	return h.put(ctx)
}

// grain is how late the end of a right may be noticed on a machine that has slept, by who does not
// ask for what remains of it.
const grain = 100 * time.Millisecond

// expire ends the right when its time is over.
func (h *Held) expire() {
	for h.ctx.Err() == nil {
		left := h.Remaining()
		if left == 0 {
			h.end(h.lapsed())
		}
		pause(h.ctx, min(left, grain))
	}
}

// lapsed says why the right was not renewed in time.
func (h *Held) lapsed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := fmt.Errorf("%s: %w: the daemon did not renew it in time", h.want, coordd.ErrLost)
	if h.why != nil {
		err = fmt.Errorf("%w: %w", err, h.why)
	}
	return err
}
