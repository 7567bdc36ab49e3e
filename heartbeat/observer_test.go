package heartbeat

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const second = time.Second

// observe plays looks, one a second, at one member with a TTL of 6 s, and returns the second
// in which it was found overdue, or -1.
func observe(o *observer, until int, seqAt func(second int) int64, stalledAt func(second int) time.Duration) int {
	for s := range until + 1 {
		now := time.Duration(s) * second
		if overdue := o.look(now, now, stalledAt(s), []pulse{{id: "x", seq: seqAt(s), ttl: 6 * second}}); len(overdue) > 0 {
			return s
		}
	}
	return -1
}

func stopsAt(stop int) func(int) int64 {
	return func(s int) int64 { return int64(min(s, stop)) }
}

// healthy is an observer whose own beats are answered, one every two seconds.
func healthy(int) time.Duration { return 2 * second }

func TestSilenceOfAWindowIsDeath(t *testing.T) {
	// Silent since the look at 3 s; the window of 6 s is 6.36 s; the next look is at 10 s.
	if got := observe(new(observer), 20, stopsAt(3), healthy); got != 10 {
		t.Fatalf("overdue: got %d s, want 10 s", got)
	}
}

func TestOneLookIsNoDeath(t *testing.T) {
	o := new(observer)
	old := []pulse{{id: "x", seq: 7, ttl: 6 * second}}
	if overdue := o.look(1000*second, 1000*second, 0, old); len(overdue) != 0 {
		t.Fatalf("overdue at the first look: got %v, want none", overdue)
	}
}

func TestAMemberThatBeatsIsNeverOverdue(t *testing.T) {
	if got := observe(new(observer), 600, stopsAt(600), healthy); got != -1 {
		t.Fatalf("overdue: got %d s, want never", got)
	}
}

func TestM3BlindTimeDoesNotCount(t *testing.T) {
	o := new(observer)
	observe(o, 5, stopsAt(0), healthy)
	// Frozen for an hour: what it saw before is worth nothing.
	hour := 3600 * second
	x := []pulse{{id: "x", seq: 0, ttl: 6 * second}}
	if overdue := o.look(hour, hour, 0, x); len(overdue) != 0 {
		t.Fatalf("overdue at the look after a gap: got %v, want none", overdue)
	}
	if got, want := o.seen["x"].since, hour; got != want {
		t.Fatalf("silent since: got %v, want %v", got, want)
	}
}

func TestM3TimeWithoutAnOwnBeatDoesNotCount(t *testing.T) {
	stuck := func(int) time.Duration { return 4 * second } // reads work, and writes take long
	if got := observe(new(observer), 600, stopsAt(0), stuck); got != -1 {
		t.Fatalf("overdue: got %d s, want never", got)
	}
}

func TestRestartForgets(t *testing.T) {
	o := new(observer)
	observe(o, 6, stopsAt(0), healthy)
	o.restart()
	if overdue := o.look(7*second, 7*second, 0, []pulse{{id: "x", ttl: 6 * second}}); len(overdue) != 0 {
		t.Fatalf("overdue after a restart: got %v, want none", overdue)
	}
}

func TestTheLastLookIsTimedToTheWindow(t *testing.T) {
	o := new(observer)
	x := []pulse{{id: "x", seq: 1, ttl: 6 * second}}
	for _, s := range []time.Duration{0, 2, 4, 6} {
		o.look(s*second, s*second, 0, x)
	}
	if got, want := o.next(2*second), window(6*second); got != want {
		t.Fatalf("next look: got %v, want %v", got, want)
	}
}

// The promise itself, over any schedule: whoever is found overdue has no right left, as the
// beat that was last answered was sent before it was committed, committed before it was
// seen, and watched for longer than it carries; with clocks whose rates differ by 1 %.
func TestM1NobodyIsOverdueWhileValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ttl := time.Duration(rapid.IntRange(300, 15000).Draw(t, "ttl")) * time.Millisecond
		skew := rapid.Float64Range(-0.01, 0.01).Draw(t, "skew") // of the observer's clock
		local := func(at time.Duration) time.Duration { return at + time.Duration(float64(at)*skew) }
		o := new(observer)
		var now, validUntil time.Duration // by the member's clock
		var seq int64
		var seen []pulse
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(ttl)).Draw(t, "pause"))
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0: // a beat: sent now, committed at once or after a while, and answered
				sent := now
				now += time.Duration(rapid.Int64Range(0, int64(ttl/4)).Draw(t, "delay"))
				seq++
				validUntil = sent + right(ttl)
			case 1: // a beat whose reply is lost
				seq++
			default: // a look: read now, received later
				seen = []pulse{{id: "x", seq: seq, ttl: ttl}}
				sent := now
				now += time.Duration(rapid.Int64Range(0, int64(ttl/4)).Draw(t, "delay"))
				overdue := o.look(local(sent), local(now), 0, seen)
				if len(overdue) > 0 && overdue[0].seq == seq && now < validUntil {
					t.Fatalf("declared dead at %v while valid until %v", now, validUntil)
				}
			}
		}
	})
}

func TestNextNeverLiesInThePast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := new(observer)
		now := time.Duration(0)
		for range 20 {
			now += time.Duration(rapid.Int64Range(0, int64(10*second)).Draw(t, "pause"))
			var pulses []pulse
			for i := range rapid.IntRange(0, 5).Draw(t, "members") {
				pulses = append(pulses, pulse{id: fmt.Sprint(i), seq: rapid.Int64Range(0, 3).Draw(t, "seq"), ttl: 6 * second})
			}
			o.look(now, now, 0, pulses)
			if next := o.next(2 * second); next <= now {
				t.Fatalf("next look: got %v at %v, want later", next, now)
			}
		}
	})
}
