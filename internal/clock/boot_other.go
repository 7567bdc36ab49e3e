//go:build !linux && !darwin && !freebsd && !openbsd

package clock

import "time"

func sinceBoot() time.Duration { return Now() }
