package httpapi

// Limit sets how many streams, and rights of clients, there may be at once.
func (c *Config) Limit(streams, grants int) { c.mostStreams, c.mostGrants = streams, grants }
