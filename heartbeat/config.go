package heartbeat

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/name"
)

// Config is what a member says of itself. Only Name is needed.
type Config struct {
	Name    string            // stable, for people: "app-7"; two members may bear it, as after a restart
	Address string            // where the member is reached; metadata, never identity
	Version string            // of the application; metadata
	Labels  map[string]string // metadata; names and values as names, or an empty value

	// Kind is what the member is for; empty means Server.
	Kind Kind

	// TTL is how long a session is valid after its latest beat; 0 means 6 s. A crash is
	// noticed after a little more than that. It counts in whole milliseconds, and the
	// database may hold an upper limit (15 s, in coordd_meta under max_ttl).
	TTL time.Duration

	// Beat is the time from one beat to the next; 0 means TTL/3.
	Beat time.Duration

	// Timeout ends a statement that was not answered; 0 means TTL/4.
	Timeout time.Duration

	// Load tells how busy this member is, once a beat; nil tells nothing. It must return
	// promptly: Leave waits for it.
	Load func() Load

	// Logger hears of transitions, never of each beat; nil means silence.
	Logger *slog.Logger
}

// Kind is what a member is for.
type Kind string

// The kinds of members.
const (
	Server Kind = "member" // a server: what is shared out among members is given to it
	Client Kind = "client" // a command that holds something for a while; lists leave it out where nobody asks for it
)

// DefaultTTL is the TTL of a Config that names none.
const DefaultTTL = 6 * time.Second

// driftPercent is how far the rates of two clocks may differ.
const driftPercent = 1

// margin is what clocks are read, and statements sent, too late or too early.
func margin(ttl time.Duration) time.Duration { return max(200*time.Millisecond, ttl/20) }

// right is how long a beat carries its own session, from before it was sent.
func right(ttl time.Duration) time.Duration { return ttl - ttl*driftPercent/100 - margin(ttl) }

// window is how long others must have watched a session's last beat before they may
// declare it dead.
func window(ttl time.Duration) time.Duration { return ttl + ttl*driftPercent/100 + margin(ttl) }

// withDefaults fills what is zero.
func (c Config) withDefaults() Config {
	if c.Kind == "" {
		c.Kind = Server
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.Beat == 0 {
		c.Beat = c.TTL / 3
	}
	if c.Timeout == 0 {
		c.Timeout = c.TTL / 4
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate fails with [coordd.ErrInvalid] and says what cannot hold, and which number to
// change. Join does it too.
func (c Config) Validate() error {
	if err := c.withDefaults().check(); err != nil {
		return fmt.Errorf("%w: %w", coordd.ErrInvalid, err)
	}
	return nil
}

// check reads a Config with its defaults filled.
func (c Config) check() error {
	if err := name.Check("member name", c.Name); err != nil {
		return err
	}
	if err := name.CheckOptional("member address", c.Address); err != nil {
		return err
	}
	if err := name.CheckOptional("member version", c.Version); err != nil {
		return err
	}
	if err := checkLabels(c.Labels); err != nil {
		return err
	}
	if c.Kind != Server && c.Kind != Client {
		return fmt.Errorf("kind %q: it is %s or %s", c.Kind, Server, Client)
	}
	return c.checkTimes()
}

// checkTimes holds that a session survives one lost beat: sent, timed out, sent again
// and answered late.
func (c Config) checkTimes() error {
	switch {
	case c.TTL < 0 || c.TTL%time.Millisecond != 0:
		return fmt.Errorf("TTL %v: it must be a positive number of whole milliseconds", c.TTL)
	case c.Beat < least || c.Beat > c.TTL:
		return fmt.Errorf("beat %v: it must be between %v and the TTL %v", c.Beat, least, c.TTL)
	case c.Timeout < least || c.Timeout > c.TTL:
		return fmt.Errorf("timeout %v: it must be between %v and the TTL %v", c.Timeout, least, c.TTL)
	}
	if need := c.Beat + 2*c.Timeout + margin(c.TTL); need > c.TTL {
		return fmt.Errorf("TTL %v is too short: beat %v + 2 * timeout %v + margin %v make %v; raise the TTL (1.2s is the least with the other two left out) or lower beat or timeout",
			c.TTL, c.Beat, c.Timeout, margin(c.TTL), need)
	}
	return nil
}

// least is the shortest time that makes sense to ask a database for.
const least = 10 * time.Millisecond

const maxLabels = 64

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return fmt.Errorf("%d labels: %d are the most", len(labels), maxLabels)
	}
	for k, v := range labels {
		if err := name.Check("label", k); err != nil {
			return err
		}
		if err := name.CheckOptional("value of label "+k, v); err != nil {
			return err
		}
	}
	return nil
}

// encodeLabels is how labels stand in the database: a JSON object.
func encodeLabels(labels map[string]string) string {
	if len(labels) == 0 {
		return "{}"
	}
	b, err := json.Marshal(labels)
	if err != nil {
		panic(err) // a map of strings has nothing that JSON cannot say
	}
	return string(b)
}
