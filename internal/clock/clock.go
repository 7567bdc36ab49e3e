// Package clock is the one clock by which coordd decides: monotonic, local, and
// counting the time that the machine was suspended.
//
// Go's own monotonic clock stops while a machine sleeps. A holder that slept through
// its deadline must not think that it still holds, so the time spent suspended is
// added. Inside a testing/synctest bubble the clock is the bubble's. A machine that
// is frozen in a way that no clock of its own shows (some hypervisors) is not seen;
// only a guard inside the user's transaction holds there.
package clock

import (
	"context"
	"time"
)

// The origin of the clock, and the time suspended before it.
var (
	start     = time.Now()
	suspended = suspension()
)

// grain is what two clocks that are read one after the other may differ by without
// the machine having slept.
const grain = 10 * time.Millisecond

// Now is the time since an arbitrary moment. Only differences mean anything, and only
// inside one process.
func Now() time.Duration {
	return time.Since(start) + (suspension() - suspended).Round(grain)
}

// SinceBoot is an instant that all processes of this machine agree on, until it boots again:
// the time since an arbitrary moment that they share, with the time suspended. It is real
// inside a bubble too. Where there is no such clock (Windows), it means something
// inside one process only.
func SinceBoot() time.Duration { return sinceBoot() }

type key struct{}

// With returns a context in which another clock counts: that of a simulated machine, fast,
// slow or frozen.
func With(ctx context.Context, now func() time.Duration) context.Context {
	return context.WithValue(ctx, key{}, now)
}

// Of is the clock of a context: [Now], unless it was made by [With].
func Of(ctx context.Context) (now func() time.Duration) {
	if now, ok := ctx.Value(key{}).(func() time.Duration); ok {
		return now
	}
	return Now
}
