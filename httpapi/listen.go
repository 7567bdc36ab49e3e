package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
)

// CheckListen refuses an address that others than this host can reach, unless TLS and a token
// file are configured; nothing would ask them who they are. Serve does it too.
func (c Config) CheckListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("the listen address is host:port, as 127.0.0.1:7400")
	}
	if loopback(host) {
		return nil
	}
	const or = "; or use 127.0.0.1, [::1] or localhost"
	switch {
	case c.TLS == nil || c.Tokens == nil:
		return fmt.Errorf("listen address %s: without TLS and tokens the API is served on loopback only: configure a web-config file with tls_server_config and a token file%s", address, or)
	case !c.Tokens.usable(c.TLS.verifies()):
		return fmt.Errorf("listen address %s: the token file names client certificates only, and the web-config file does not verify any: set client_auth_type and client_ca_file there, or add a token%s", address, or)
	}
	return nil
}

func loopback(host string) bool {
	return strings.EqualFold(host, "localhost") || address(host).IsLoopback()
}

// address is the address that a host is, or nil.
func address(host string) net.IP {
	if inner, ok := strings.CutPrefix(host, "["); ok { // an IPv6 address without a port
		host = strings.TrimSuffix(inner, "]")
	}
	return net.ParseIP(host)
}

// onlyKnownHosts refuses requests that came by another name than the daemon's: a page in a
// browser can make its own name resolve to any address (DNS rebinding). An address is no name,
// so the one that the connection came to is known.
func (a *api) onlyKnownHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		known := func(name string) bool { return strings.EqualFold(name, strings.TrimSuffix(host, ".")) }
		if !loopback(host) && !slices.ContainsFunc(a.Hosts, known) && !isLocal(r, host) {
			a.refuse(w, r, problem("unknown_host"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLocal says whether a host is the address that the request's connection came to.
func isLocal(r *http.Request, host string) bool {
	ip := address(host)
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && ip != nil && ip.Equal(local.IP)
}

// onlyOwnPages refuses writes that a page of another origin makes a browser send.
func (a *api) onlyOwnPages() func(http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, r, problem("cross_origin"))
	}))
	return protection.Handler
}

// The largest body of a request, and of one that adds jobs or changes one: a payload of 64 KiB, as
// package assign allows, may take six times as much in JSON. Both are below what huma takes by itself.
const (
	maxBody     = 64 << 10
	maxJobsBody = 512 << 10
)

// mostOf is how large the body of a request may be.
func mostOf(r *http.Request) int64 {
	for _, jobs := range []string{"/v1/groups/*/jobs", "/v1/groups/*/jobs/*"} {
		if is, _ := path.Match(jobs, r.URL.EscapedPath()); is {
			return maxJobsBody
		}
	}
	return maxBody
}

// wholeBodies reads the body of a write before anybody looks at the request, and refuses it if
// it is too large, too slow or broken. Nothing reads the body of any other request.
func wholeBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		most := mostOf(r)
		if r.ContentLength > most {
			w.Header().Set("Connection", "close")
			refuse(w, problem("too_large"))
			return
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			refuse(w, problem("too_large"))
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			refuse(w, problem("slow_request"))
			return
		case err != nil:
			refuse(w, problem("malformed").with("its body ends too early or is encoded wrongly"))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}
