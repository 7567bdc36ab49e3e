//go:build freebsd || openbsd

package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("clock: " + err.Error())
	}
	return time.Duration(t.Nano())
}
