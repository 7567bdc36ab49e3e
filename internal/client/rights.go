package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/coordd/coordd/httpapi"
)

// Elections lists the elections in which anybody ever campaigned.
func (c *Client) Elections(ctx context.Context) ([]httpapi.Election, error) {
	all := []httpapi.Election{}
	for after := ""; ; {
		var page httpapi.ElectionPage
		if err := c.get(ctx, "/v1/elections", following(after), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Elections...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// Election tells how one election stands.
func (c *Client) Election(ctx context.Context, name string) (e httpapi.Election, err error) {
	err = c.get(ctx, "/v1/elections/"+url.PathEscape(name), nil, &e)
	return e, err
}

// Resign has the leader give up, and returns when it leads no more. It fails with
// [coordd.ErrNone] if nobody leads.
func (c *Client) Resign(ctx context.Context, election string, ask httpapi.Ask) error {
	return c.ask(ctx, "/v1/elections/"+url.PathEscape(election)+"/resign", "", ask)
}

// Transfer is Resign in favour of a candidate, by its member's id or name. It fails with
// [coordd.ErrNone] if that one is no candidate.
func (c *Client) Transfer(ctx context.Context, election, to string, ask httpapi.Ask) error {
	return c.ask(ctx, "/v1/elections/"+url.PathEscape(election)+"/transfer", to, ask)
}

// Locks lists the locks that were ever asked for.
func (c *Client) Locks(ctx context.Context) ([]httpapi.Lock, error) {
	all := []httpapi.Lock{}
	for after := ""; ; {
		var page httpapi.LockPage
		if err := c.get(ctx, "/v1/locks", following(after), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Locks...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// Lock tells how one lock stands.
func (c *Client) Lock(ctx context.Context, name string) (l httpapi.Lock, err error) {
	err = c.get(ctx, "/v1/locks/"+url.PathEscape(name), nil, &l)
	return l, err
}

// ReleaseLock has everybody who holds a lock give it up, and returns when none of them holds it
// any more. It fails with [coordd.ErrNone] if nobody holds it.
func (c *Client) ReleaseLock(ctx context.Context, name string, ask httpapi.Ask) error {
	return c.ask(ctx, "/v1/locks/"+url.PathEscape(name)+"/release", "", ask)
}

// following asks for what comes after a name.
func following(after string) url.Values {
	if after == "" {
		return nil
	}
	return url.Values{"after": {after}}
}

// ask sends an order, which is answered when it was obeyed.
func (c *Client) ask(ctx context.Context, path, to string, ask httpapi.Ask) error {
	body, err := json.Marshal(struct {
		To     string `json:"to,omitempty"`
		Reason string `json:"reason"`
		Within string `json:"within"`
	}{to, ask.Reason, ask.Within.String()})
	if err != nil {
		return err
	}
	r, err := c.request(ctx, http.MethodPost, path, nil, body)
	if err != nil {
		return err
	}
	var answer json.RawMessage
	return c.do(r, ask.Within+longestWait, &answer)
}
