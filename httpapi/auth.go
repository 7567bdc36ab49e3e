package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/coordd/coordd/heartbeat"
)

// caller is who sent a request.
type caller struct {
	name string
	role Role
}

// identify tells who sent a request. Without a token file everybody is this host's
// administrator, as [Config.CheckListen] lets such a daemon listen on loopback only. Who
// presents a token is known by it or not at all.
func (a *api) identify(r *http.Request) (caller, bool) {
	if a.Tokens == nil {
		return caller{"loopback", Admin}, true
	}
	var g grant
	var ok bool
	given := r.Header.Values("Authorization")
	switch {
	case len(given) == 1:
		if scheme, token, _ := strings.Cut(given[0], " "); strings.EqualFold(scheme, "Bearer") {
			g, ok = a.Tokens.byToken(strings.TrimSpace(token))
		}
	case len(given) == 0 && r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		g, ok = a.Tokens.byCertificate(r.TLS.VerifiedChains[0][0].Subject.CommonName)
	}
	return caller{g.name, g.role}, ok
}

// needed is the role that a request needs; empty: what load balancers and orchestrators ask,
// which have no token.
func needed(r *http.Request) Role {
	path := routed(r)
	switch {
	case path == "/livez", path == "/role/member", strings.HasPrefix(path, "/role/leader/"), path == "/readyz" && !r.URL.Query().Has("verbose"):
		return ""
	case path == "/v1/config", strings.HasPrefix(path, "/debug/"):
		return Admin
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		return Viewer
	}
	return Operator
}

// routed is the path by which chi finds what serves a request.
func routed(r *http.Request) string {
	if r.URL.RawPath != "" {
		return r.URL.RawPath
	}
	return r.URL.Path
}

// allowed lets a request pass if its sender has the role that it needs.
func (a *api) allowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		role := needed(r)
		if role == "" {
			next.ServeHTTP(w, r)
			return
		}
		who, known := a.identify(r)
		if !known {
			w.Header().Set("WWW-Authenticate", `Bearer realm="coordd"`)
			a.refuse(w, r, problem("unauthorized"))
			return
		}
		if !who.role.allows(role) {
			a.refuse(w, r, problem("forbidden").with("it needs the role "+string(role)+", and "+who.name+" has "+string(who.role)))
			return
		}
		by := heartbeat.By{Actor: who.name, Remote: r.RemoteAddr, Via: r.Method + " " + r.URL.EscapedPath()}
		ctx := context.WithValue(context.WithValue(r.Context(), byKey{}, by), callerKey{}, who)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// refuse logs that somebody may not do something, and says so.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, p *Problem) {
	a.Logger.Warn("request refused", "code", p.Code, "why", p.Detail, "remote", r.RemoteAddr, "host", r.Host, "method", r.Method, "path", r.URL.Path)
	refuse(w, p)
}

// byKey and callerKey are where a request's context holds on whose behalf it is.
type (
	byKey     struct{}
	callerKey struct{}
)

// asked says on whose behalf a request is.
func asked(ctx context.Context, reason string) heartbeat.By {
	by, _ := ctx.Value(byKey{}).(heartbeat.By)
	by.Reason = reason
	return by
}
