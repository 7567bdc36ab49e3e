package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestInABubbleTheClockIsTheBubbles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := Now()
		time.Sleep(time.Hour)
		if got := Now() - before; got != time.Hour {
			t.Fatalf("an hour: got %v, want %v", got, time.Hour)
		}
	})
}

func TestTheClockNeverGoesBack(t *testing.T) {
	last := Now()
	for range 100_000 {
		now := Now()
		if now < last {
			t.Fatalf("got %v after %v", now, last)
		}
		last = now
	}
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		Now()
	}
}
