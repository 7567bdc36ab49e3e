package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// suspension is the time that this machine has been suspended since it booted: on
// macOS CLOCK_MONOTONIC counts it and CLOCK_UPTIME_RAW, Go's clock, does not. Slewing
// of the former shows as a drift of at most 500 parts per million, far below rho.
func suspension() time.Duration {
	for {
		before := read(unix.CLOCK_UPTIME_RAW)
		boot := read(unix.CLOCK_MONOTONIC)
		if after := read(unix.CLOCK_UPTIME_RAW); after-before < grain/4 {
			return boot - before
		}
	}
}

func sinceBoot() time.Duration { return read(unix.CLOCK_MONOTONIC) }

func read(clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		panic("clock: " + err.Error())
	}
	return time.Duration(t.Nano())
}
