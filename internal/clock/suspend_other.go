//go:build !linux && !darwin

package clock

import "time"

// suspension is zero where Go's monotonic clock goes on during a suspend (Windows,
// the BSDs).
func suspension() time.Duration { return 0 }
