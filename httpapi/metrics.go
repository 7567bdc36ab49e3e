package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/rights"
)

// registry is what /metrics shows: the sessions as they are when it is asked.
func (a *api) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), sessions{a}, clients{a})
	return r
}

var (
	wanted    = prometheus.NewDesc("coordd_sessions_wanted", "Sessions that this process means to have.", nil, nil)
	present   = prometheus.NewDesc("coordd_sessions_valid", "Sessions of this process that carry rights.", nil, nil)
	streams   = prometheus.NewDesc("coordd_event_streams", "Clients that wait for events, on a stream or in a long poll.", nil, nil)
	succeeded = prometheus.NewDesc("coordd_loop_last_success_timestamp_seconds", "When the daemon last succeeded at what it does again and again.", []string{"loop"}, nil)
	valid     = desc("coordd_session_valid", "1 while the session carries rights, else 0.")
	remaining = desc("coordd_session_remaining_seconds", "Time until the session is suspended if no beat succeeds.")
	beats     = desc("coordd_beats_total", "Beats of the session that succeeded.")
	failures  = desc("coordd_beat_failures_total", "Beats of the session that failed.")
	blindness = desc("coordd_look_failures_total", "Failed attempts of the session to look at the others.")
	latency   = desc("coordd_beat_latency_seconds", "Time that the latest beat took to be answered.")
)

// What the daemon does for its clients, by kind: lock or election.
var (
	rightsHeld    = prometheus.NewDesc("coordd_rights_held", "Locks and leaderships that the daemon holds for its clients.", []string{"kind"}, nil)
	rightsWaiting = prometheus.NewDesc("coordd_rights_waiting", "Clients that wait for one.", []string{"kind"}, nil)
	rightsGranted = prometheus.NewDesc("coordd_rights_granted_total", "Locks and leaderships that clients were given.", []string{"kind"}, nil)
	rightsRenewed = prometheus.NewDesc("coordd_right_renewals_total", "Renewals by clients.", []string{"kind"}, nil)
	rightsEnded   = prometheus.NewDesc("coordd_rights_ended_total", "Locks and leaderships of clients that have ended: given_up, expired, cut (with a connection), requested (by somebody), unfit (the member drains), lost (with the session, for now or for good).", []string{"kind", "reason"}, nil)
)

// clients collects the numbers of what the daemon does for its clients.
type clients struct{ api *api }

func (c clients) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rightsHeld, rightsWaiting, rightsGranted, rightsRenewed, rightsEnded} {
		ch <- d
	}
}

func (c clients) Collect(ch chan<- prometheus.Metric) {
	for _, kind := range []rights.Kind{rights.Lock, rights.Election} {
		n := c.api.desk.Counts(kind)
		tell := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, t, v, append([]string{string(kind)}, labels...)...)
		}
		tell(rightsHeld, prometheus.GaugeValue, float64(n.Held))
		tell(rightsWaiting, prometheus.GaugeValue, float64(n.Waiting))
		tell(rightsGranted, prometheus.CounterValue, float64(n.Granted))
		tell(rightsRenewed, prometheus.CounterValue, float64(n.Renewed))
		for _, reason := range rights.Reasons {
			tell(rightsEnded, prometheus.CounterValue, float64(n.Ended[reason]), string(reason))
		}
	}
}

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"name"}, nil)
}

// sessions collects the numbers of this process's sessions.
type sessions struct{ api *api }

func (c sessions) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{wanted, present, streams, succeeded, valid, remaining, beats, failures, blindness, latency} {
		ch <- d
	}
}

func (c sessions) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	byName := map[string]*heartbeat.Session{} // two of a name would be one metric told twice
	all := c.api.Sessions()
	for _, s := range all {
		byName[s.Name()] = s
	}
	for _, s := range byName {
		c.collect(ch, s)
	}
	gauge(wanted, float64(c.api.Want))
	gauge(present, float64(countValid(all)))
	gauge(streams, float64(len(c.api.streams)))
	if c.api.Loops == nil {
		return
	}
	for _, l := range c.api.Loops() {
		if !l.LastSuccess.IsZero() {
			gauge(succeeded, float64(l.LastSuccess.UnixMilli())/1000, l.Name)
		}
	}
}

func (c sessions) collect(ch chan<- prometheus.Metric, s *heartbeat.Session) {
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Name())
	}
	counter := func(d *prometheus.Desc, v int64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), s.Name())
	}
	stats := s.Stats()
	gauge(valid, float64(countValid([]*heartbeat.Session{s})))
	gauge(remaining, stats.Remaining.Seconds())
	gauge(latency, stats.Latency.Seconds())
	counter(beats, stats.Beats)
	counter(failures, stats.Failures)
	counter(blindness, stats.LookFailures)
}
