package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// registry is what /metrics shows: the sessions as they are when it is asked.
func (a *api) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), sessions{a})
	return r
}

var (
	wanted    = prometheus.NewDesc("coordd_sessions_wanted", "Sessions that this process means to have.", nil, nil)
	present   = prometheus.NewDesc("coordd_sessions_valid", "Sessions of this process that carry rights.", nil, nil)
	valid     = desc("coordd_session_valid", "1 while the session carries rights, else 0.")
	remaining = desc("coordd_session_remaining_seconds", "Time until the session is suspended if no beat succeeds.")
	beats     = desc("coordd_beats_total", "Beats of the session that succeeded.")
	failures  = desc("coordd_beat_failures_total", "Beats of the session that failed.")
	blindness = desc("coordd_look_failures_total", "Failed attempts of the session to look at the others.")
	latency   = desc("coordd_beat_latency_seconds", "Time that the latest beat took to be answered.")
)

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"name"}, nil)
}

// sessions collects the numbers of this process's sessions.
type sessions struct{ api *api }

func (c sessions) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{wanted, present, valid, remaining, beats, failures, blindness, latency} {
		ch <- d
	}
}

func (c sessions) Collect(ch chan<- prometheus.Metric) {
	carrying := 0
	defer func() {
		ch <- prometheus.MustNewConstMetric(wanted, prometheus.GaugeValue, float64(c.api.Want))
		ch <- prometheus.MustNewConstMetric(present, prometheus.GaugeValue, float64(carrying))
	}()
	for _, s := range c.api.Sessions() {
		stats := s.Stats()
		isValid := 0.0
		if s.Valid() {
			isValid = 1
			carrying++
		}
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Name())
		}
		counter := func(d *prometheus.Desc, v int64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), s.Name())
		}
		gauge(valid, isValid)
		gauge(remaining, stats.Remaining.Seconds())
		gauge(latency, stats.Latency.Seconds())
		counter(beats, stats.Beats)
		counter(failures, stats.Failures)
		counter(blindness, stats.LookFailures)
	}
}
