package dbtest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Relay listens on a host's address and passes connections on to a server, each way half of delay later,
// until it is cut or the test ends. A cut ends the connections, and refuses others.
func Relay(t testing.TB, host, to string, delay time.Duration) (address string, cut func()) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{delay: delay}
	r.all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			r.join(client, server)
		}
	})
	cut = func() {
		listener.Close()
		r.cut()
	}
	t.Cleanup(func() {
		cut()
		r.all.Wait()
	})
	return listener.Addr().String(), cut
}

type relay struct {
	delay time.Duration
	all   sync.WaitGroup

	mu    sync.Mutex
	isCut bool
	conns []net.Conn
}

func (r *relay) join(client, server net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, client, server)
	if r.isCut {
		client.Close()
		server.Close()
		return
	}
	r.all.Go(func() { r.pass(server, client) })
	r.all.Go(func() { r.pass(client, server) })
}

func (r *relay) pass(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		time.Sleep(r.delay / 2)
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isCut = true
	for _, conn := range r.conns {
		conn.Close()
	}
}
