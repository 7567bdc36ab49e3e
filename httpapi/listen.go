package httpapi

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// CheckListen refuses addresses that others than this host could reach: nothing would ask
// them who they are.
func CheckListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("the listen address is host:port, as 127.0.0.1:7400")
	}
	if !loopback(host) {
		return fmt.Errorf("listen address %s: the API has no authentication yet and is served on loopback only: use 127.0.0.1, [::1] or localhost", address)
	}
	return nil
}

func loopback(host string) bool {
	if inner, ok := strings.CutPrefix(host, "["); ok { // an IPv6 address without a port
		host = strings.TrimSuffix(inner, "]")
	}
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// onlyLoopbackHosts refuses requests that came by another name than this host's own: a
// page in a browser of this host can make its name resolve to 127.0.0.1 (DNS rebinding).
func onlyLoopbackHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if !loopback(host) {
			refuse(problem{Status: http.StatusMisdirectedRequest, Code: "unknown_host",
				Title: "This Host is not served", Hint: "use localhost or 127.0.0.1"})(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// onlyOwnPages refuses writes that a page of another origin makes a browser send.
func onlyOwnPages() func(http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(refuse(problem{Status: http.StatusForbidden, Code: "cross_origin",
		Title: "A page of another origin may change nothing", Hint: "call the API from outside of a browser"}))
	return protection.Handler
}
