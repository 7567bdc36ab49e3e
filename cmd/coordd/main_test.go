package main

import (
	"bytes"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/internal/child"
	"github.com/coordd/coordd/internal/dbtest"
)

// The test binary is coordd itself if this is set in its environment.
const beCoordd = "COORDD_TEST_BE_COORDD"

func TestMain(m *testing.M) {
	child.Main()
	if len(os.Args) > 1 && os.Args[1] == "be-worker" {
		beWorker(os.Args[2], os.Args[3])
	}
	if os.Getenv(beCoordd) != "" {
		main()
	}
	dbtest.Main(m)
}

// process is a coordd of its own.
type process struct {
	cmd    *exec.Cmd
	output *output
}

// start starts coordd on a database. It is killed with the test.
func start(t *testing.T, dsn string, args ...string) *process {
	t.Helper()
	return startWith(t, nil, dsn, args...)
}

// startWith is start with more variables in the environment.
func startWith(t *testing.T, environ []string, dsn string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe, args...), output: new(output)}
	p.cmd.Dir = t.TempDir()
	p.cmd.Env = append(append(os.Environ(), beCoordd+"=1", "COORDD_DSN="+dsn), environ...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		if t.Failed() {
			t.Logf("%v:\n%s", args, p.output)
		}
	})
	return p
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the process and returns its exit code.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case <-done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(dbtest.Patience):
		p.signal(t, syscall.SIGQUIT) // so that it tells what all of its goroutines do
		p.signal(t, syscall.SIGCONT)
		last := time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() })
		<-done
		last.Stop()
		t.Fatalf("the process still runs after %v:\n%s", dbtest.Patience, p.output)
		return -1
	}
}

// output is a buffer that is written and read at once.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
