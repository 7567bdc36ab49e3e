package dbtest

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// A Switch is one address for servers that take turns behind it, as a DNS name or a virtual IP is. It passes bytes
// on and knows no protocol. Its methods may be called from several goroutines.
type Switch struct {
	listener net.Listener
	dsn      string
	serving  sync.WaitGroup

	mu    sync.Mutex
	route *route
}

// StartSwitch points a new switch to a server. It ends with the test.
func StartSwitch(tb testing.TB, to *Server) *Switch {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Switch{
		listener: listener,
		dsn:      with(tb, to.DSN(), func(u *url.URL) { u.Host = listener.Addr().String() }),
		route:    newRoute(to.Address()),
	}
	s.serving.Go(s.serve)
	tb.Cleanup(func() {
		s.listener.Close()
		s.serving.Wait()
		s.Cut()
	})
	return s
}

// DSN is the administrator's URL of the server that was behind the switch first, with the switch's address.
func (s *Switch) DSN() string { return s.dsn }

// Point cuts every connection, and leads new ones to another server.
func (s *Switch) Point(to *Server) { s.lead(newRoute(to.Address())) }

// Cut cuts every connection, and new ones at once.
func (s *Switch) Cut() { s.lead(newRoute("")) }

// lead returns when nothing passes on the old route any more.
func (s *Switch) lead(next *route) {
	s.mu.Lock()
	old := s.route
	s.route = next
	s.mu.Unlock()
	old.close()
	old.conns.Wait()
}

func (s *Switch) serve() {
	for {
		client, err := s.listener.Accept()
		if err != nil {
			return // the test is over
		}
		s.mu.Lock()
		r := s.route
		r.conns.Go(func() { r.forward(client) })
		s.mu.Unlock()
	}
}

// A route is where a switch leads, until it is pointed elsewhere.
type route struct {
	address string // empty: nowhere
	open    context.Context
	close   func()
	conns   sync.WaitGroup // grows only while the switch has this route
}

func newRoute(address string) *route {
	r := &route{address: address}
	r.open, r.close = context.WithCancel(context.Background())
	return r
}

// forward ends both connections when either ends, or the route.
func (r *route) forward(client net.Conn) {
	defer client.Close()
	if r.address == "" {
		return
	}
	server, err := new(net.Dialer).DialContext(r.open, "tcp", r.address)
	if err != nil {
		return // to the client it looks the same
	}
	ctx, hangUp := context.WithCancel(r.open)
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		defer hangUp()
		io.Copy(to, from)
	}
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	<-ctx.Done()
	client.Close()
	server.Close()
	both.Wait()
}
