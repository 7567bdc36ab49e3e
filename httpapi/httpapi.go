// Package httpapi is the daemon's HTTP interface: members, elections and locks and what may be done
// to them, locks and leaderships for clients that have no session of their own (internal/rights),
// events and a stream of them, status, doctor and configuration below /v1; /livez, /readyz, /role
// and /metrics beside it; described at /openapi.json.
//
// Without a token file it listens on loopback only, where everybody may do everything; see
// [Config.CheckListen]. With one, each request but those of load balancers and orchestrators
// (/livez, /readyz, /role) needs a token or a client certificate. What is asked of members, leaders
// and holders, and of groups and jobs, is an event in the commit of the change that says who asked
// for it; who is refused is logged. It answers only requests whose Host is known, so that no page in
// a browser can reach it by a name of its own, and takes no write that a page of another origin sends.
//
// What orchestrators and load balancers ask is answered from memory: it costs the database
// nothing, and is answered when that is gone. All else costs a statement or two; a stream of
// events or a request that waits for one costs one statement a second.
package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/rights"
)

// Config is what the API shows, and to whom.
type Config struct {
	DB       *coordd.DB
	Version  string                      // of the program
	Want     int                         // how many sessions make this process ready
	Sessions func() []*heartbeat.Session // those of this process, now
	Groups   []string                    // of jobs, that this process serves by itself

	// Leads says whether a session of this process leads an election at this instant, beside those
	// that it leads for clients; nil means that none does. It asks nobody.
	Leads func(election string) bool

	// Loops tells of what the daemon does again and again; nil means nothing.
	Loops func() []Loop

	// Doctor examines the database and what the daemon has of it; nil means that /v1/doctor is
	// not available. What it finds is shown, so it must hold no secret. One runs at a time.
	Doctor func(context.Context) ([]Finding, error)

	// Settings are what /v1/config shows as JSON, as they are now and without secrets; nil means
	// that it is not available.
	Settings func() any

	Tokens *Tokens  // who may use the API; nil: everybody on this host
	TLS    *TLS     // nil: plain HTTP
	Hosts  []string // names beside localhost by which the daemon is reached

	Pprof  bool         // serve /debug/pprof/ to administrators
	Logger *slog.Logger // hears of errors that were not the caller's, of writes, and of who is refused; nil means silence

	// Tests set how many may wait for events at once, on a stream or in a long poll (0 means 64; each costs a
	// statement a second), and how many rights clients may have (0 means 10,000).
	mostStreams, mostGrants int
}

// How long things may take.
const (
	requestTimeout = 10 * time.Second // a request, from its first byte to its last
	statementsEnd  = 5 * time.Second  // what an ordinary request asks the database
	grace          = 3 * time.Second  // requests that are under way when the daemon ends
	writeTimeout   = 10 * time.Second // one message of a stream
)

// api serves one Config.
type api struct {
	Config
	handler   http.Handler
	openapi   description
	desk      *rights.Desk    // where clients ask for locks and leaderships
	streams   chan struct{}   // a place for each one that may wait for events
	examining chan struct{}   // the place of the one that runs the doctor
	life      context.Context // ends with the daemon, and with it all that waits for events
	end       func()

	mu       sync.Mutex
	sidecars map[string]*sidecar // by id
	ended    bool
	requests sync.WaitGroup
}

// Serve serves the API until ctx ends, and then for a moment those requests that are under way;
// streams end at once. No request outlives it. It closes the listener.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	defer l.Close()
	if err := cfg.CheckListen(l.Addr().String()); err != nil {
		return err
	}
	a := newAPI(cfg)
	server := a.server()
	serve := server.Serve
	if cfg.TLS != nil {
		server.TLSConfig = cfg.TLS.config(a.Logger)
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		a.end()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		_ = server.Shutdown(ctx) // fails if somebody holds a request open, which is closed then
	})
	err := serve(ties{l, cfg.TLS != nil, a.life})
	if !stop() {
		<-stopped
	}
	a.end()
	_ = server.Close() // of connections that have no say any more
	a.wait()
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// server has limits on everything a client can make it wait for.
func (a *api) server() *http.Server {
	return &http.Server{
		Handler:           a.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout + 5*time.Second,
		IdleTimeout:       2 * rights.MostTTL, // no right that is tied to a connection is renewed more seldom
		ConnContext:       withConn,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(a.Logger.Handler(), slog.LevelWarn),
	}
}

func newAPI(cfg Config) *api {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.mostStreams == 0 {
		cfg.mostStreams = 64
	}
	a := &api{
		Config:    cfg,
		streams:   make(chan struct{}, cfg.mostStreams),
		examining: make(chan struct{}, 1),
		sidecars:  map[string]*sidecar{},
	}
	a.life, a.end = context.WithCancel(context.Background())
	a.desk = rights.New(rights.Config{Sessions: cfg.Sessions, Most: cfg.mostGrants, Logger: cfg.Logger})
	router := chi.NewRouter()
	router.Use(a.counted, cautious, a.onlyKnownHosts, a.onlyOwnPages(), a.allowed, wholeBodies, middleware.GetHead)
	router.NotFound(refusing("not_found"))
	router.MethodNotAllowed(refusing("method_not_allowed"))
	router.Get("/livez", a.livez)
	router.Get("/readyz", a.readyz)
	router.Get("/role/member", a.role)
	router.Get("/role/leader/{election}", a.roleLeader)
	router.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(a.registry(), promhttp.HandlerOpts{}))
	if cfg.Pprof {
		router.HandleFunc("/debug/pprof/*", pprof.Index) // and no cmdline, which may have a DSN in it
		router.HandleFunc("/debug/pprof/profile", patiently(pprof.Profile))
		router.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		router.HandleFunc("/debug/pprof/trace", patiently(pprof.Trace))
	}
	h := humachi.New(router.With(inJSON), humaConfig(cfg.Version))
	problemSchema(h)
	a.register(h)
	a.openapi = describe(h)
	router.Get("/openapi.json", a.openapi.serve31)
	router.Get("/openapi-3.0.json", a.openapi.serve30)
	a.handler = router
	return a
}

// register names every operation below /v1.
func (a *api) register(h huma.API) {
	huma.Register(h, get("members", "/v1/members", "The members that live, or those that were asked for"), a.members)
	huma.Register(h, get("member", "/v1/members/{id}", "One member, by its id or by a name that only it bears"), a.member)
	for _, o := range operations {
		huma.Register(h, post(o.name, "/v1/members/{id}/"+o.name, o.summary), a.operate(o))
	}
	a.registerElections(h)
	a.registerLocks(h)
	a.registerGroups(h)
	a.registerGrants(h)
	huma.Register(h, waiting(get("events", "/v1/events", "What has changed after a revision; waits for it if asked to"), maxWait), a.events)
	huma.Register(h, waiting(streaming(get("watch", "/v1/watch", "A stream of what changes, from a revision or from now on")), writeTimeout), a.watch)
	huma.Register(h, get("status", "/v1/status", "This daemon, its sessions and its database"), a.status)
	huma.Register(h, waiting(get("doctor", "/v1/doctor", "What is wrong, and what to do"), doctorTimeout), a.doctor)
	huma.Register(h, get("config", "/v1/config", "The daemon's configuration, without secrets. Needs the role admin"), a.config)
}

// bounded is for what an ordinary request asks the database.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, statementsEnd)
}

// patiently lifts the limit of a request's time, where the handler sets one of its own.
func patiently(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		next(w, r)
	}
}

// counted lets [Serve] wait for requests.
func (a *api) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		ended := a.ended
		if !ended {
			a.requests.Add(1)
		}
		a.mu.Unlock()
		if ended {
			panic(http.ErrAbortHandler)
		}
		defer a.requests.Done()
		next.ServeHTTP(w, r)
	})
}

// wait waits for the requests that are under way and lets no other begin.
func (a *api) wait() {
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	a.requests.Wait()
}

// inJSON is how everything below /v1 is answered, whatever a client accepts: huma's negotiation
// panics on some malformed headers (v2.37.2, found by FuzzRequests).
func inJSON(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Accept")
		next.ServeHTTP(w, r)
	})
}

// cautious tells browsers to keep nothing and to guess nothing.
func cautious(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}
