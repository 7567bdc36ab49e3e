package httpapi

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/coordd/coordd/heartbeat"
)

// livez says that the process serves requests, and nothing of the database: an
// orchestrator must not restart servers because their database is away.
func (a *api) livez(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "ok")
}

// countValid counts the sessions that are valid now.
func countValid(sessions []*heartbeat.Session) (n int) {
	for _, s := range sessions {
		if s.Valid() {
			n++
		}
	}
	return n
}

// role says to load balancers whether this process is a member now.
func (a *api) role(w http.ResponseWriter, _ *http.Request) {
	if countValid(a.Sessions()) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "no session of this process is valid")
		return
	}
	fmt.Fprintln(w, "ok")
}

// roleLeader says to load balancers whether this process leads an election at this instant, for
// itself or for a client.
func (a *api) roleLeader(w http.ResponseWriter, r *http.Request) {
	if election := parameter(r, "election"); !a.desk.Leads(election) && (a.Leads == nil || !a.Leads(election)) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "this process does not lead it")
		return
	}
	fmt.Fprintln(w, "ok")
}

// parameter is a part of a path, as huma would read it.
func parameter(r *http.Request, name string) string {
	value := r.PathValue(name)
	if r.URL.RawPath == "" {
		return value // nothing of it was escaped that matters
	}
	unescaped, err := url.PathUnescape(value)
	if err != nil {
		return value
	}
	return unescaped
}

// readyz says whether every session of this process is valid now. With ?verbose it says
// of each.
func (a *api) readyz(w http.ResponseWriter, r *http.Request) {
	sessions := a.Sessions()
	if n := countValid(sessions); n < a.Want {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "not ready: %d of %d sessions are valid\n", n, a.Want)
	} else {
		fmt.Fprintln(w, "ok")
	}
	if !r.URL.Query().Has("verbose") {
		return
	}
	for _, s := range sessions {
		mark := "+"
		if !s.Valid() {
			mark = "-"
		}
		stats := s.Stats()
		fmt.Fprintf(w, "[%s] session %s %s: valid for %v, beats %d, failed %d\n",
			mark, s.Name(), s.ID(), stats.Remaining, stats.Beats, stats.Failures)
	}
}
