package clock

import (
	"context"
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

func TestAContextMayBringAClock(t *testing.T) {
	noon := func() time.Duration { return 12 * time.Hour }
	if got := Of(context.WithoutCancel(With(t.Context(), noon)))(); got != noon() {
		t.Fatalf("got %v, want %v", got, noon())
	}
	if got := Of(t.Context())(); got > Now() || got == noon() {
		t.Fatalf("got %v, want the time before %v", got, Now())
	}
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		Now()
	}
}
