package dbtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coordd/coordd/internal/dsn"
)

const (
	readyWithin  = 60 * time.Second // a new server must answer by then
	answerWithin = 10 * time.Second // so must one that is said to be running
	pollEvery    = 50 * time.Millisecond
)

// Postgres returns the URL, postgres://user:password@host:port/postgres?sslmode=disable, by which an
// administrator reaches a PostgreSQL server that all tests of this binary share.
//
// The server is the one that COORDD_TEST_POSTGRES names; else a container, where a Docker engine answers;
// else one started from the programs installed on this machine. It is started for the first
// caller and ended by Main. Without any, the test is skipped, or fails where CI is set.
func Postgres(tb testing.TB) string {
	tb.Helper()
	return thisRun.postgres.get(tb)
}

// MySQL returns the URL, mysql://user:password@host:port/, by which an administrator reaches a MySQL or
// MariaDB server that all tests of this binary share. It is found as Postgres finds its own, with
// COORDD_TEST_MYSQL.
func MySQL(tb testing.TB) string {
	tb.Helper()
	return thisRun.mysql.get(tb)
}

// A product is a kind of database server: how to get one and how to ask it whether it is there.
type product struct {
	name          string
	variable      string // names the environment variable with the URL of a server to use
	example       string // of that URL
	imageVariable string // names the environment variable that replaces image
	image         string
	debian        string   // package that installs the programs
	accounts      []string // whom the server runs as when the tests run as root
	port          string   // on which it listens inside a container
	passwords     []string // environment variables by which a container takes the administrator's password
	tuning        []string // arguments of the server in a container and out of it
	adminURL      func(password, address string) string
	find          func() (programs, error)
}

// shared is the one server of a product that all tests of the binary use.
type shared struct {
	product *product

	mu    sync.Mutex
	asked bool
	found source
	err   error
}

// A source is a running server, where it came from, and how to end it.
type source struct {
	url, origin string
	close       func() error
}

var (
	errNone  = errors.New("no server to be had")
	errOver  = errors.New("the test run is over")
	errEnded = errors.New("it ended before it answered")
)

func (s *shared) get(tb testing.TB) string {
	tb.Helper()
	if !thisRun.supervised() {
		tb.Fatalf("dbtest: nobody would end the %s server: add to this package: func TestMain(m *testing.M) { dbtest.Main(m) }",
			s.product.name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked {
		s.asked = true
		s.found, s.err = obtain(thisRun.context(), s.product)
		if s.err == nil {
			tb.Logf("dbtest: %s from %s", s.product.name, s.found.origin)
		}
	}
	stopWithout(tb, s.err)
	return s.found.url
}

// close ends the server, after it has waited for a start in progress, and prevents another one.
func (s *shared) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	closing := s.found.close
	s.asked, s.found, s.err = true, source{}, errOver
	if closing == nil {
		return nil
	}
	return closing()
}

// stopWithout ends the test if err says that it has no server. A machine that has none may skip, CI may not.
func stopWithout(tb testing.TB, err error) {
	tb.Helper()
	ci, _ := strconv.ParseBool(os.Getenv("CI"))
	switch {
	case err == nil:
	case errors.Is(err, errNone) && !ci:
		tb.Skip(err)
	default:
		tb.Fatal(err)
	}
}

// obtain tries the sources of a server in their order.
func obtain(ctx context.Context, p *product) (source, error) {
	if url := os.Getenv(p.variable); url != "" {
		return source{url: url, origin: p.variable}, p.check(ctx, url)
	}
	container, dockerErr := startContainer(ctx, p)
	if dockerErr == nil {
		return container, nil
	}
	server, err := newServer(p, Extra{})
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		return source{}, fmt.Errorf("%s from a container: %w\nfrom the programs of this machine: %w", p.name, dockerErr, err)
	}
	return source{url: server.DSN(), origin: "programs of this machine", close: server.close}, nil
}

// check asks the server that the environment names for a sign of life. The error bears no password.
func (p *product) check(ctx context.Context, named string) error {
	u, err := url.Parse(named)
	if err != nil || u.Host == "" || !strings.HasPrefix(p.example, u.Scheme+":") {
		// err would quote the password.
		return fmt.Errorf("%s is not a URL such as %s; correct it, or unset it to have a server started", p.variable, p.example)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if err := ping(ctx, named); err != nil {
		return fmt.Errorf("%s names a server that does not answer: %w; start it, or unset %[1]s to have one started",
			p.variable, err)
	}
	return nil
}

// ping asks for a sign of life.
func ping(ctx context.Context, url string) error {
	target, err := dsn.Parse(url)
	if err != nil {
		return err
	}
	db, err := target.Open(ctx, answerWithin)
	if err != nil {
		return err
	}
	return db.Pool().Close()
}

// missing says what to do on a machine without programs of the product.
func (p *product) missing(why error) error {
	return fmt.Errorf("%s: %w: %w\nrun scripts/testdeps, or `apt-get install %s`, or start a Docker engine, or set %s=%s",
		p.name, errNone, why, p.debian, p.variable, p.example)
}

// awaitReady pings until the server answers, until ping says errEnded, or until ctx ends.
func awaitReady(ctx context.Context, ping func(context.Context) error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := ping(ctx)
		if err == nil || errors.Is(err, errEnded) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; its last answer: %w", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}
