package dbtest

import (
	"testing"
	"time"
)

// Patience is longer than anything that is bound to happen takes on any machine: a minute, or three
// under the race detector.
const Patience = time.Minute * stretch

// Eventually waits until a condition holds, which it asks for often, and fails the test if that takes
// longer than Patience. In a synctest bubble it waits in virtual time.
func Eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	deadline := time.Now().Add(Patience)
	for !condition() {
		if time.Now().After(deadline) {
			tb.Fatalf("after %v: got nothing, want %s", Patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
