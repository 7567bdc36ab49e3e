//go:build linux || darwin || freebsd || openbsd

package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/clock/clocktest"
)

func TestTheCommandsEndIsTold(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]struct {
		result Result
		code   int
	}{
		"exit 0":           {Result{}, 0},
		"exit 3":           {Result{Code: 3}, 3},
		"exit 124":         {Result{Code: 124}, 124},
		"kill -KILL $$":    {Result{Signal: syscall.SIGKILL}, 137},
		"kill -TERM $$":    {Result{Signal: syscall.SIGTERM}, 143},
		"sleep 0; exit 75": {Result{Code: 75}, 75},
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			if got := start(t, sh(script)).Wait(); got != want.result || got.ExitCode() != want.code {
				t.Fatalf("got %+v, code %d; want %+v, code %d", got, got.ExitCode(), want.result, want.code)
			}
		})
	}
}

func TestWhatCannotBeRunIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		args []string
		want error
	}{
		"nothing":                   {nil, ErrNotFound},
		"an empty name":             {[]string{""}, ErrNotFound},
		"not in PATH":               {[]string{"no-such-command-anywhere"}, ErrNotFound},
		"no such file":              {[]string{filepath.Join(dir, "absent")}, ErrNotFound},
		"no such interpreter":       {[]string{file("lost", "#!/no/such/interpreter\n", 0o700)}, ErrNotFound},
		"a directory":               {[]string{dir}, ErrCannotExecute},
		"not executable":            {[]string{file("plain", "exit 0\n", 0o600)}, ErrCannotExecute},
		"no program, and no script": {[]string{file("text", "exit 0\n", 0o700)}, ErrCannotExecute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := tryStart(t, Command{Args: test.args}); !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestArgumentsMeetNoShell(t *testing.T) {
	t.Parallel()
	args := []string{"printf", `[%s]`, "a b", `"c'`, "$HOME", "*", "; exit 9", ""}
	p := start(t, Command{Args: args})
	if got, want := p.says(t, "[]"), `[a b]["c'][$HOME][*][; exit 9][]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if r := p.Wait(); r != (Result{}) {
		t.Errorf("got %+v, want success", r)
	}
}

func TestEnvironmentDirectoryAndInput(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := sh(`pwd; env | grep -c .; echo "$GREETING"; cat; echo end`)
	cmd.Dir, cmd.Env = dir, []string{"GREETING=hello", "PATH=" + os.Getenv("PATH"), "PWD=" + dir}
	p := start(t, cmd)
	got := strings.Fields(p.says(t, "end"))
	p.Wait()
	if len(got) != 4 || got[0] != dir || got[2] != "hello" || got[3] != "end" {
		t.Errorf("got %q, want %s, a number, hello, and nothing from /dev/null", got, dir)
	}
	if n := number(t, got[1]); n > 6 { // dash and bash set some of their own
		t.Errorf("got %d variables, want those of Env", n)
	}
}

func TestTheCommandHasAGroupOfItsOwn(t *testing.T) {
	t.Parallel()
	cmd := sh(`echo $$; sleep 3600`)
	cmd.Grace = time.Minute
	p := start(t, cmd)
	defer p.Wait()
	pid := number(t, p.says(t, "\n"))
	group, err := syscall.Getpgid(pid)
	if err == nil && pid != p.Pid() {
		err = fmt.Errorf("its number is %d", p.Pid())
	}
	if err != nil || group != pid || group == syscall.Getpgrp() {
		t.Errorf("command %d is in group %d (%v), want its own", pid, group, err)
	}
	p.Stop()
}

func TestSignalsReachTheCommandAndItsGroup(t *testing.T) {
	t.Parallel()
	names := map[os.Signal]string{
		syscall.SIGHUP: "HUP", syscall.SIGINT: "INT", syscall.SIGQUIT: "QUIT", syscall.SIGTERM: "TERM",
		syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2", syscall.SIGWINCH: "WINCH",
	}
	if len(Forwarded()) != len(names) {
		t.Fatalf("got %v forwarded, want %v", Forwarded(), names)
	}
	for _, s := range Forwarded() {
		t.Run(names[s], func(t *testing.T) {
			t.Parallel()
			p := start(t, Command{Args: []string{self0(), "be-ears", "command", "child"}})
			p.says(t, "command listens")
			p.Signal(s)
			heard := p.rest() // until both have ended
			p.Stop()
			p.Wait()
			if !strings.Contains(heard, fmt.Sprint("command hears ", s)) {
				t.Errorf("got %q, want the command to hear %v", heard, s)
			}
			if got := strings.Contains(heard, fmt.Sprint("child hears ", s)); got == forOne(s) {
				t.Errorf("the other of its group: got heard %v, want %v: %s", got, !forOne(s), heard)
			}
		})
	}
}

func TestAStoppedCommandMayEndInOrder(t *testing.T) {
	for name, stop := range map[string]func(started, context.CancelFunc){
		"by Stop":             func(p started, _ context.CancelFunc) { p.Stop(); p.Stop() },
		"by its context":      func(_ started, cancel context.CancelFunc) { cancel() },
		"as its time is near": func(p started, _ context.CancelFunc) { p.Extend(clock.SinceBoot() + 30*time.Second) },
		"while it is frozen": func(p started, _ context.CancelFunc) {
			_ = syscall.Kill(-p.Pid(), syscall.SIGSTOP)
			p.Stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd := sh(`trap 'sleep 0.2; echo in order; exit 7' TERM; echo begun; while :; do sleep 0.01; done`)
			cmd.Grace, cmd.Stdout = time.Minute, w
			process, err := Start(ctx, cmd)
			w.Close()
			if err != nil {
				t.Fatal(err)
			}
			p := started{process, &output{from: r}}
			p.says(t, "begun")
			stop(p, cancel)
			if got, want := p.Wait(), (Result{Code: 7, Stopped: true}); got != want {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			if rest := p.rest(); !strings.Contains(rest, "in order") {
				t.Errorf("got %q, want in order", rest)
			}
		})
	}
}

func TestACommandThatDoesNotHeedItIsKilledAfterTheGrace(t *testing.T) {
	cmd := sh(`trap '' TERM; echo begun; while :; do sleep 1; done`)
	cmd.Grace = 300 * time.Millisecond
	p := start(t, cmd)
	p.says(t, "begun")
	began := time.Now()
	p.Stop()
	if got, want := p.Wait(), (Result{Signal: syscall.SIGKILL, Stopped: true}); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if took := time.Since(began); took < cmd.Grace {
		t.Errorf("it was killed after %v, want %v at least", took, cmd.Grace)
	}
}

func TestItIsOverBeforeItsTime(t *testing.T) {
	undisturbed(t, func() error {
		cmd := sh(`trap 'echo told' TERM; echo begun; while :; do sleep 0.01; done`)
		cmd.Grace, cmd.Notice = time.Minute, 500*time.Millisecond
		cmd.Until = clock.SinceBoot() + 1500*time.Millisecond
		p := start(t, cmd)
		p.says(t, "told")
		if now := clock.SinceBoot(); now < cmd.Until-cmd.Notice-lead {
			t.Errorf("it was told %v before its end, want %v", cmd.Until-now, cmd.Notice+lead)
		}
		if got, want := p.Wait(), (Result{Signal: syscall.SIGKILL, Stopped: true}); got != want {
			return fmt.Errorf("got %+v, want %+v", got, want)
		}
		if now := clock.SinceBoot(); now >= cmd.Until {
			return fmt.Errorf("its end was known %v after its time", now-cmd.Until)
		}
		return nil
	})
}

// undisturbed does what is to be done in time, and again where it fails while the machine stands still.
func undisturbed(t *testing.T, do func() error) {
	t.Helper()
	for range 5 {
		standstill := clocktest.Watch()
		err := do()
		still := standstill()
		if err == nil {
			return
		}
		if still < lead/3 {
			t.Error(err)
			return
		}
		t.Logf("%v, which does not count: the machine stood still for %v", err, still)
	}
	t.Error("this machine is too busy for anything to be in time")
}

func TestItRunsForAsLongAsItIsExtended(t *testing.T) {
	cmd := sh(`trap 'echo told; exit 0' TERM; while :; do sleep 0.01; done`)
	cmd.Notice, cmd.Grace = 4*time.Second, time.Minute
	begun := clock.SinceBoot()
	cmd.Until = begun + 6*time.Second
	p := start(t, cmd)
	told := make(chan time.Duration)
	go func() {
		if !p.read("told") {
			t.Errorf("got %q, want told", p.unread)
		}
		told <- clock.SinceBoot()
	}()
	var last time.Duration
	for last < begun+2500*time.Millisecond {
		last = clock.SinceBoot()
		p.Extend(last + 6*time.Second)
		time.Sleep(20 * time.Millisecond)
	}
	if at := <-told; at < last {
		t.Errorf("it was told to end %v before it was extended last", last-at)
	}
	if got, want := p.Wait(), (Result{Stopped: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestWithoutTimeNothingIsRun(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "run")
	for _, until := range []time.Duration{1, clock.SinceBoot() - time.Hour, clock.SinceBoot() + 100*time.Millisecond} {
		p := start(t, Command{Args: []string{"touch", file}, Notice: 50 * time.Millisecond, Until: until})
		if got, want := p.Wait(), (Result{Stopped: true}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Fatalf("it was run: %v", err)
	}
}

func TestLeftoversMayEndInOrderToo(t *testing.T) {
	t.Parallel()
	cmd := sh(`sh -c "trap 'sleep 0.2; echo in order; exit' TERM; echo begun; while :; do sleep 0.01; done" & read ready < /dev/null; while ! test -e "$0"; do sleep 0.01; done; exit 5`)
	file := filepath.Join(t.TempDir(), "go")
	cmd.Args = append(cmd.Args, file)
	cmd.Grace = time.Minute
	p := start(t, cmd)
	p.says(t, "begun")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := p.Wait(), (Result{Code: 5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if rest := p.rest(); rest != "\nin order\n" {
		t.Errorf("what it left behind: got %q, want in order", rest)
	}
}

// The supervisor keeps a connection open until the command has ended. The command has it not, and this process reads it as before.
func TestAConnectionIsKeptForAsLongAsTheCommandRuns(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	cmd := sh(fmt.Sprintf(`(: >&%d) 2>/dev/null && echo inherited; echo begun; sleep 3600`, keptFile))
	cmd.Keep, cmd.Grace = conn.(*net.TCPConn), time.Minute
	p := start(t, cmd)
	if said := p.says(t, "begun"); strings.Contains(said, "inherited") {
		t.Error("the command has the connection")
	}
	silent := func(c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want a connection on which nothing comes", err)
		}
	}
	silent(conn)
	conn.Close()
	silent(peer)
	p.Stop()
	p.Wait()
	_ = peer.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("when the command has ended: got %v, want %v", err, io.EOF)
	}
}

func TestInstantsDoNotOverflow(t *testing.T) {
	t.Parallel()
	if got := later(clock.SinceBoot(), never, never); got != never {
		t.Errorf("got %v, want %v", got, never)
	}
	if got := later(time.Hour, -time.Minute, time.Second); got != time.Hour+time.Second {
		t.Errorf("got %v, want 1h0m1s", got)
	}
	cmd := sh("exit 0")
	cmd.Grace, cmd.Notice, cmd.Until = never, time.Second, never
	if got := start(t, cmd).Wait(); got != (Result{}) {
		t.Errorf("got %+v, want success", got)
	}
}

func TestWhatWasIgnoredIsNotForwarded(t *testing.T) {
	t.Parallel()
	w := wrap(t, "1h", `trap "" HUP; exec "$@"`, "sh", "-c", "trap 'echo usr1; exit 0' USR1; echo begun; while :; do sleep 0.01; done")
	w.says(t, "begun")
	w.signal(t, syscall.SIGHUP)
	w.signal(t, syscall.SIGUSR1)
	w.says(t, "usr1")
	if code := w.exit(t); code != 0 {
		t.Fatalf("got exit code %d, want 0", code)
	}
	if slices.Contains(Forwarded(), os.Signal(syscall.SIGKILL)) {
		t.Fatal("SIGKILL cannot be forwarded")
	}
}
