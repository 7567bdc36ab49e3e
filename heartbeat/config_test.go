package heartbeat

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
)

func TestTheDefaultsHold(t *testing.T) {
	if err := (Config{Name: "a"}).Validate(); err != nil {
		t.Fatal(err)
	}
	c := Config{}.withDefaults()
	if got, want := [3]time.Duration{c.TTL, c.Beat, c.Timeout}, [3]time.Duration{6 * time.Second, 2 * time.Second, 1500 * time.Millisecond}; got != want {
		t.Fatalf("TTL, beat and timeout: got %v, want %v", got, want)
	}
}

func TestTheWindowOutlastsTheRight(t *testing.T) {
	for _, ttl := range []time.Duration{300 * time.Millisecond, 1200 * time.Millisecond, 6 * time.Second, time.Minute} {
		// One clock 1 % slow, the other 1 % fast.
		if longest, shortest := right(ttl)*101/100, window(ttl)*99/100; shortest <= longest {
			t.Fatalf("TTL %v: a window of %v does not outlast a right of %v", ttl, shortest, longest)
		}
	}
}

func TestBadConfigsAreRefusedWithTheReason(t *testing.T) {
	many := map[string]string{}
	for i := range 65 {
		many[strings.Repeat("k", i+1)] = ""
	}
	for _, test := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "it is empty"},
		{Config{Name: "a "}, "begins or ends with space"},
		{Config{Name: "a\x00"}, "control characters"},
		{Config{Name: "\xff"}, "not UTF-8"},
		{Config{Name: strings.Repeat("ä", 101)}, "202 bytes"},
		{Config{Name: "a", Address: " :80"}, "member address"},
		{Config{Name: "a", Version: "1\n"}, "member version"},
		{Config{Name: "a", Labels: map[string]string{"": "x"}}, "label"},
		{Config{Name: "a", Labels: map[string]string{"zone": "\t"}}, "value of label zone"},
		{Config{Name: "a", Labels: many}, "64 are the most"},
		{Config{Name: "a", Kind: "guest"}, "it is member or client"},
		{Config{Name: "a", TTL: -time.Second}, "positive"},
		{Config{Name: "a", TTL: 6*time.Second + time.Microsecond}, "whole milliseconds"},
		{Config{Name: "a", TTL: time.Second}, "raise the TTL"},
		{Config{Name: "a", Beat: 3 * time.Second}, "lower beat or timeout"},
		{Config{Name: "a", Timeout: 3 * time.Second}, "lower beat or timeout"},
		{Config{Name: "a", Beat: -1}, "beat"},
		{Config{Name: "a", Timeout: -1}, "timeout"},
	} {
		err := test.cfg.Validate()
		if !errors.Is(err, coordd.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want %v with %q", test.cfg, err, coordd.ErrInvalid, test.want)
		}
	}
}
