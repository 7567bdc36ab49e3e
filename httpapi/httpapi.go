// Package httpapi is the daemon's HTTP interface: /v1/members, /livez, /readyz, /metrics
// and the description of what is below /v1 at /openapi.json.
//
// It has no authentication yet, so [CheckListen] lets it listen on loopback addresses
// only, and it answers only requests whose Host names one, so that no page in a browser
// can reach it by a name of its own. /livez and /readyz answer from memory: they cost the
// database nothing, and answer when it is gone.
package httpapi

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
)

// Config is what the API shows.
type Config struct {
	DB       *coordd.DB
	Version  string                      // of the program
	Want     int                         // how many sessions make this process ready
	Sessions func() []*heartbeat.Session // those of this process, now
	Logger   *slog.Logger                // hears of errors that were not the caller's; nil means silence
}

type api struct{ Config }

// requestTimeout ends a request's work; every answer is small.
const requestTimeout = 10 * time.Second

// New is the API as a handler.
func New(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &api{cfg}
	router := chi.NewRouter()
	router.Use(onlyLoopbackHosts, onlyOwnPages(), middleware.GetHead)
	router.NotFound(refuse(problem{Status: http.StatusNotFound, Code: "not_found",
		Title: "There is nothing at this path", Hint: "/openapi.json has the paths"}))
	router.MethodNotAllowed(refuse(problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed",
		Title: "This path does not take this method", Hint: "/openapi.json has the methods"}))
	router.Get("/livez", a.livez)
	router.Get("/readyz", a.readyz)
	router.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(a.registry(), promhttp.HandlerOpts{}))
	h := humachi.New(router, description(cfg.Version))
	huma.Get(h, "/v1/members", a.members, describe("members", "Everyone that the database knows"))
	return router
}

// description switches off what huma would load from elsewhere or add to answers.
func description(version string) huma.Config {
	d := huma.DefaultConfig("coordd", version)
	d.DocsPath, d.SchemasPath, d.CreateHooks = "", "", nil
	d.Info.Description = "Which servers are alive."
	return d
}

// describe names an operation, and its errors as what they are.
func describe(id, summary string) func(*huma.Operation) {
	return func(o *huma.Operation) {
		o.OperationID, o.Summary = id, summary
		o.Responses = map[string]*huma.Response{"default": {
			Description: "A problem, as RFC 9457 has it",
			Content:     map[string]*huma.MediaType{problemType: {Schema: problemSchema()}},
		}}
	}
}

// Server is an HTTP server with limits on everything a client can make it wait for.
func Server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           http.TimeoutHandler(handler, requestTimeout, "the answer took too long\n"),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout + 5*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}
