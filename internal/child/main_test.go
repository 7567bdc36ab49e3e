//go:build linux || darwin || freebsd || openbsd

package child

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/coordd/coordd/internal/clock"
)

// What locks a thread while packages are initialized locks the process's first one to main.
var _ = func() int { runtime.LockOSThread(); return 0 }()

// The test binary is other programs too, by its first argument. Tests whose supervisor may be killed do
// not run beside those that start wrappers, which would be taken for what it left behind.
func TestMain(m *testing.M) {
	Main()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "be-wrapper":
			beWrapper(os.Args[2], os.Args[3:])
		case "be-tree":
			beTree(os.Args[2])
		case "be-ears":
			beEars(os.Args[2], os.Args[3:])
		}
	}
	runtime.UnlockOSThread()
	goleak.VerifyTestMain(m)
}

// beWrapper runs a command that may run for a time, and forwards signals.
func beWrapper(forHowLong string, args []string) {
	d, err := time.ParseDuration(forHowLong)
	if err != nil {
		panic(err)
	}
	cmd := Command{Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Grace: time.Minute, Notice: d / 8, Until: clock.SinceBoot() + d}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, Forwarded()...)
	p, err := Start(context.Background(), cmd)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
	go func() {
		for s := range signals {
			p.Signal(s)
		}
	}()
	r := p.Wait()
	if r.Err != nil {
		fmt.Fprintln(os.Stderr, r.Err)
		os.Exit(125)
	}
	os.Exit(r.ExitCode())
}

// beTree starts more of itself, in all ways in which a process may get away from its parent, and
// runs for ever. Each letter is a way.
func beTree(ways string) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	if ways != "" {
		cmd := exec.Command(self0(), "be-tree", ways[1:])
		switch ways[0] {
		case 'g':
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		case 's':
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		}
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		if ways[0] == 'o' { // an orphan
			os.Exit(0)
		}
		if ways[0] == 'h' {
			go time.Sleep(time.Hour)
			endFirstThread()
		}
	} else {
		fmt.Println("complete")
	}
	time.Sleep(time.Hour)
}

// beEars says what signal it hears, and ends. It starts another one of its group before, and ends after that, unless
// the signal is for it alone.
func beEars(name string, others []string) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, Forwarded()...)
	var other *exec.Cmd
	if len(others) > 0 {
		r, w, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		other = exec.Command(self0(), append([]string{"be-ears"}, others...)...)
		other.Stdout, other.ExtraFiles = os.Stdout, []*os.File{w}
		if err := other.Start(); err != nil {
			panic(err)
		}
		w.Close()
		_, _ = r.Read(make([]byte, 1)) // until it listens
	} else {
		_ = os.NewFile(3, "ready").Close()
	}
	fmt.Println(name, "listens")
	heard := <-signals
	fmt.Println(name, "hears", heard)
	if other != nil && !forOne(heard) {
		_ = other.Wait() // its end would have the other told SIGTERM, which may overtake what it is to hear
	}
	os.Exit(0)
}

// forOne says that a signal is for the command alone.
func forOne(s os.Signal) bool { return s == syscall.SIGUSR1 || s == syscall.SIGUSR2 }

func self0() string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return exe
}

// sh is a command with its output in a pipe.
func sh(script string) Command { return Command{Args: []string{"/bin/sh", "-c", script}} }

// output is what somebody says.
type output struct {
	from   *os.File
	unread string
}

// says waits until something was said, and returns all until there.
func (o *output) says(t *testing.T, want string) string {
	t.Helper()
	if !o.read(want) {
		t.Fatalf("got %q, want %q", o.unread, want)
	}
	said := o.unread[:strings.Index(o.unread, want)+len(want)]
	o.unread = o.unread[len(said):]
	return said
}

// rest is what is said to the end.
func (o *output) rest() string {
	o.read("\x00")
	return o.unread
}

// read reads until something was said, and says whether it was.
func (o *output) read(want string) bool {
	buf := make([]byte, 4096)
	_ = o.from.SetReadDeadline(time.Now().Add(time.Minute))
	for !strings.Contains(o.unread, want) {
		n, err := o.from.Read(buf)
		o.unread += string(buf[:n])
		if err != nil && n == 0 {
			return false
		}
	}
	return true
}

// started is a command that has begun, and what it says.
type started struct {
	*Process
	*output
}

func start(t *testing.T, cmd Command) started {
	t.Helper()
	p, err := tryStart(t, cmd)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryStart(t *testing.T, cmd Command) (started, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	t.Cleanup(func() { r.Close() })
	cmd.Stdout = w
	cmd.Stderr = os.Stderr
	p, err := Start(t.Context(), cmd)
	return started{p, &output{from: r}}, err
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: got nothing, want %s", what)
		}
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
