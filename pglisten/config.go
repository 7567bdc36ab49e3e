package pglisten

import (
	"log/slog"
	"time"
)

// Config says how to listen. Nothing in it is needed.
type Config struct {
	// Ping is how long the connection may be silent before it is asked for a sign of life;
	// 0 means 15 s.
	Ping time.Duration

	// Timeout ends an attempt to connect, a probe or a ping that was not answered; 0 means
	// 5 s. A path that is dropped without a word is noticed within Ping + Timeout.
	Timeout time.Duration

	// Logger hears when it begins to hear and when it stops; nil means silence.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Ping <= 0 {
		c.Ping = 15 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
