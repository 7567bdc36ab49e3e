package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"

	"github.com/testcontainers/testcontainers-go/log"
	"go.uber.org/goleak"
)

// Main is the TestMain of every package that asks for a database server:
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
// It runs the tests, ends every server they started (on SIGINT and SIGTERM as well), fails a run that
// left a goroutine behind, and exits.
func Main(m *testing.M) {
	stopWatching := thisRun.begin()
	code := m.Run()
	stopWatching()

	if err := thisRun.end(); err != nil {
		fmt.Fprintf(os.Stderr, "dbtest: end the database servers: %v\n", err)
		code = max(code, 1)
	}
	// A failed test often leaves goroutines behind; to name them would only hide the failure.
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintf(os.Stderr, "dbtest: the tests left goroutines behind: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// thisRun is the only state of this package: a server that all tests of a binary share cannot be handed
// from one to the next, because testing offers no place to keep it.
var thisRun = testRun{
	postgres: shared{product: &postgresProduct},
	mysql:    shared{product: &mysqlProduct},
}

// A testRun owns the servers of one test binary.
type testRun struct {
	postgres, mysql shared

	mu       sync.Mutex
	ctx      context.Context // ends with the run; nil unless Main is in charge
	cancel   context.CancelFunc
	closings []func() error
}

// begin puts Main in charge. The function it returns ends the watch for signals.
func (r *testRun) begin() (stopWatching func()) {
	log.SetDefault(log.NewNoopLogger()) // a page for each container would bury the tests' own output
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.atEnd(r.postgres.close)
	r.atEnd(r.mysql.close)

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if sig, ok := <-signals; ok {
			fmt.Fprintf(os.Stderr, "dbtest: %v: ending the database servers\n", sig)
			if err := r.end(); err != nil {
				fmt.Fprintf(os.Stderr, "dbtest: %v\n", err)
			}
			os.Exit(1)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-watched
	}
}

// end aborts what is still starting and closes everything that was started, each once.
func (r *testRun) end() error {
	r.cancel()
	r.mu.Lock()
	closings := r.closings
	r.closings = nil
	r.mu.Unlock()

	var errs []error
	for _, closing := range closings {
		errs = append(errs, closing())
	}
	return errors.Join(errs...)
}

// atEnd has closing called when the run ends. It must wait for a start in progress.
func (r *testRun) atEnd(closing func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closings = append(r.closings, closing)
}

// supervised tells whether Main runs the tests, so that somebody ends the shared servers.
func (r *testRun) supervised() bool { return r.ctx != nil }

// context ends when the run does.
func (r *testRun) context() context.Context {
	if r.ctx == nil {
		return context.Background()
	}
	return r.ctx
}
