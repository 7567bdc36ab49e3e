package httpapi

import (
	"fmt"
	"net/http"
)

// livez says that the process serves requests, and nothing of the database: an
// orchestrator must not restart servers because their database is away.
func (a *api) livez(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "ok")
}

// readyz says whether every session of this process is valid now. With ?verbose it says
// of each.
func (a *api) readyz(w http.ResponseWriter, r *http.Request) {
	sessions := a.Sessions()
	valid := 0
	for _, s := range sessions {
		if s.Valid() {
			valid++
		}
	}
	if valid < a.Want {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "not ready: %d of %d sessions are valid\n", valid, a.Want)
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
