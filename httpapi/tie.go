package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// ties lets rights be tied to the connections of their clients. A connection counts as ended when
// its client has ended it, by closing it or with its process, and not when this end has: a server
// that shuts down, or gives up a connection on which nothing comes, says nothing about its clients.
type ties struct {
	net.Listener
	tls  bool
	life context.Context // ends with the server
}

// Accept is that of the listener.
func (l ties) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, of: l, gone: make(chan struct{})}, nil
}

// conn notices that its client has gone: the server reads while it waits for the next request, and
// while a request is under way.
type conn struct {
	net.Conn
	of   ties
	once sync.Once
	gone chan struct{}
}

// Read is that of the connection.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		c.once.Do(func() { close(c.gone) })
	}
	return n, err
}

// farewell is the time from what a client says last, over TLS, to the end of its connection.
const farewell = 100 * time.Millisecond

// Close is that of the connection. Over TLS a client says that it will close it, and then nobody
// reads any more.
func (c *conn) Close() error {
	if c.of.tls && c.of.life.Err() == nil && c.SetReadDeadline(time.Now().Add(farewell)) == nil {
		_, _ = c.Read(make([]byte, 1)) // of which all that matters is how it ends
	}
	return c.Conn.Close()
}

// CloseWrite lets the server end an answer before it gives the connection up.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

type connKey struct{}

// withConn is a server's ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// tieOf is what is closed when the client of a request has ended its connection; or a problem, where
// that would tell nothing of the client. Whatever relays connections (a proxy, a tunnel) may end one
// whose client lives, and has another end of it than the client.
func tieOf(r *http.Request, end netip.AddrPort) (<-chan struct{}, *Problem) {
	c, ok := r.Context().Value(connKey{}).(*conn)
	seen, err := netip.ParseAddrPort(r.RemoteAddr)
	seen, end = unmapped(seen), unmapped(end)
	switch {
	case !ok || err != nil || !seen.Addr().IsLoopback():
		return nil, problem("tie_refused").with("the client is not on the daemon's host")
	case seen != end:
		return nil, problem("tie_refused").with(fmt.Sprintf("the connection comes from %v and not from %v: something between client and daemon relays it", seen, end))
	case r.Close || !r.ProtoAtLeast(1, 1):
		return nil, problem("tie_refused").with("the connection ends with this answer")
	}
	return c.gone, nil
}

// unmapped is an address as IPv4 has it, if it is one.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
