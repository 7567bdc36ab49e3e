// Package clocktest tells tests what the machine did to them.
package clocktest

import "time"

// Watch watches the machine until it is asked for how long it stood still at the most: what was to happen meanwhile
// came as late, and nobody is to blame.
func Watch() (standstill func() time.Duration) {
	const pause = 5 * time.Millisecond
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		most := time.Duration(0)
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-stop:
				longest <- most
				return
			case <-time.After(pause):
				most = max(most, time.Since(last)-pause)
			}
		}
	}()
	return func() time.Duration { close(stop); return <-longest }
}
