package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coordd/coordd/heartbeat"
)

// age is how long ago something was, as short as it is still useful.
func age(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1fs ago", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds ago", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm ago", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd ago", int(d.Hours())/24)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func labels(m map[string]string) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, k+"="+m[k])
	}
	return strings.Join(pairs, ",")
}

// busy is how busy a member is, as far as it tells.
func busy(l *heartbeat.Load) string {
	if l == nil {
		return "-"
	}
	return fmt.Sprintf("cpu %.0f%% mem %.0f%% avg %.1f", 100*l.CPU, 100*l.Memory, l.Average)
}

// counts says how many there are of each.
func counts(of map[string]int) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(of)) {
		all = append(all, fmt.Sprint(of[k], " ", k))
	}
	return strings.Join(all, ", ")
}
