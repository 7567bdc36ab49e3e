// Package clocktest tells tests what the machine did to them.
package clocktest

import "time"

// Watch watches the machine until it is asked for how long it stood still at the most: what was to happen meanwhile
// came as late, and nobody is to blame.
func Watch() (standstill func() time.Duration) {
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		most := time.Duration(0)
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-stop:
				longest <- most
				return
			case <-time.After(10 * time.Millisecond):
				most = max(most, time.Since(last))
			}
		}
	}()
	return func() time.Duration { close(stop); return <-longest }
}
