package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// suspension is the time that this machine has been suspended since it booted. The
// reading counts only if both clocks were read within one grain, lest a thread that
// was descheduled between the two look like a machine that slept.
func suspension() time.Duration {
	for {
		before := read(unix.CLOCK_MONOTONIC)
		boot := read(unix.CLOCK_BOOTTIME)
		if after := read(unix.CLOCK_MONOTONIC); after-before < grain/4 {
			return boot - before
		}
	}
}

func sinceBoot() time.Duration { return read(unix.CLOCK_BOOTTIME) }

func read(clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		panic("clock: this kernel has no CLOCK_BOOTTIME (Linux 2.6.39 has): " + err.Error())
	}
	return time.Duration(t.Nano())
}
