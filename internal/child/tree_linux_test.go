package child

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/clock/clocktest"
)

var (
	rounds = flag.Int("rounds", 16, "how many rounds TestNothingRunsPastItsTime plays")
	seed   = flag.Uint64("seed", 0, "the seed of its first round; 0: any")
)

// marked are those that live and descend from whom the mark was given, by number: the command's,
// and the supervisor's.
func marked(t *testing.T, mark string, but ...int) (commands, supervisors []int) {
	t.Helper()
	for _, p := range processes() {
		environ, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
		switch {
		case err != nil, p.dead, slices.Contains(but, p.pid), !bytes.Contains(environ, []byte(mark)):
		case supervises(p.pid):
			supervisors = append(supervisors, p.pid)
		default:
			commands = append(commands, p.pid)
		}
	}
	return commands, supervisors
}

// endFirstThread leaves a process that looks like one that has ended.
func endFirstThread() {
	if unix.Gettid() != os.Getpid() {
		panic("this is not the first thread")
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
}

// clearUp kills those that a test has left behind that froze or killed whom it should not.
func clearUp(t *testing.T, mark string) {
	commands, supervisors := marked(t, mark)
	for _, pid := range append(supervisors, commands...) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestMarkedFindsThem(t *testing.T) {
	t.Parallel()
	w := wrap(t, "1h", `exec "$@"`, self0(), "be-tree", "so")
	w.says(t, "complete")
	eventually(t, "two of three, and a supervisor", func() bool {
		commands, supervisors := marked(t, w.mark, w.cmd.Process.Pid)
		return len(commands) == 2 && len(supervisors) == 1
	})
	if commands, _ := marked(t, w.mark); len(commands) != 3 {
		t.Fatalf("got %v, want the wrapper too", commands)
	}
}

// allWays are trees of processes, by how each got away from its parent: g by a group of its own, s by a session, o
// by its parent's end, h by the end of its parent's first thread.
var allWays = []string{"", "h", "xhs", "x", "g", "s", "xo", "gs", "so", "xoo", "xgso", "sosog"}

func TestNothingOfACommandSurvivesIt(t *testing.T) {
	for _, ways := range allWays {
		for name, end := range map[string]func(*Process){
			"stopped":     (*Process).Stop,
			"out of time": func(p *Process) { p.Extend(clock.SinceBoot() + 300*time.Millisecond) },
			"killed":      func(p *Process) { _ = syscall.Kill(p.Pid(), syscall.SIGKILL) }, // some have ended themselves
		} {
			t.Run(ways+" "+name, func(t *testing.T) {
				t.Parallel()
				mark := "COORDD_TEST_MARK=" + uuid.NewString()
				p := start(t, Command{Args: []string{self0(), "be-tree", ways}, Env: append(os.Environ(), mark), Grace: 100 * time.Millisecond})
				p.says(t, "complete")
				end(p.Process)
				if r := p.Wait(); r.Err != nil {
					t.Error(r.Err)
				}
				if commands, supervisors := marked(t, mark); len(commands)+len(supervisors) > 0 {
					t.Errorf("after Wait: got %v alive, and supervisors %v, want none", commands, supervisors)
				}
			})
		}
	}
}

func TestAKilledWrapperTakesEverythingWithIt(t *testing.T) {
	t.Parallel()
	for _, ways := range allWays {
		t.Run(ways, func(t *testing.T) {
			t.Parallel()
			w := wrap(t, "3s", `exec "$@"`, self0(), "be-tree", ways)
			until := clock.SinceBoot() + 3*time.Second
			w.says(t, "complete")
			w.signal(t, syscall.SIGKILL)
			standstill := clocktest.Watch()
			eventually(t, "nobody of the command alive", func() bool {
				commands, _ := marked(t, w.mark)
				return len(commands) == 0
			})
			now, still := clock.SinceBoot(), standstill()
			if now > until+time.Second+3*still { // who ends them, they, and who looks
				t.Errorf("the last of them ended %v after its time; the machine stood still for %v", now-until, still)
			}
			eventually(t, "no supervisor alive", func() bool {
				_, supervisors := marked(t, w.mark)
				return len(supervisors) == 0
			})
		})
	}
}

func TestACommandThatHeedsSIGTERMEndsAtOnceWithItsWrapper(t *testing.T) {
	t.Parallel()
	w := wrap(t, "1h", `exec "$@"`, "sh", "-c", "echo begun; sleep 3600 & wait")
	w.says(t, "begun")
	w.signal(t, syscall.SIGKILL)
	killed := time.Now()
	eventually(t, "nobody alive", func() bool {
		commands, supervisors := marked(t, w.mark)
		return len(commands)+len(supervisors) == 0
	})
	t.Logf("it took %v", time.Since(killed))
}

func TestAKilledSupervisorTakesEverythingWithIt(t *testing.T) {
	t.Parallel()
	for _, ways := range allWays {
		t.Run(ways, func(t *testing.T) {
			t.Parallel()
			w := wrap(t, "1h", `exec "$@"`, self0(), "be-tree", ways)
			w.says(t, "complete")
			_, supervisors := marked(t, w.mark)
			if len(supervisors) != 1 {
				t.Fatalf("got supervisors %v, want one", supervisors)
			}
			if err := syscall.Kill(supervisors[0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if code := w.exit(t); code != 125 {
				t.Errorf("the wrapper: got exit code %d, want 125", code)
			}
			if commands, _ := marked(t, w.mark); len(commands) > 0 {
				t.Errorf("after its end: got %v alive, want none", commands)
			}
		})
	}
}

// What everybody is told whose program is coordd does not end the supervisor.
func TestASupervisorHeedsItsWrapperAlone(t *testing.T) {
	t.Parallel()
	w := wrap(t, "1h", `exec "$@"`, "sh", "-c", "echo begun; sleep 3600; exit 9")
	w.says(t, "begun")
	_, supervisors := marked(t, w.mark)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGALRM, syscall.SIGTSTP} {
		if err := syscall.Kill(supervisors[0], s); err != nil {
			t.Fatal(err)
		}
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", supervisors[0])); strings.TrimSpace(string(name)) != supervisorName {
		t.Errorf("its name: got %s and %v, want %s", name, err, supervisorName)
	}
	w.signal(t, syscall.SIGTERM)
	if code := w.exit(t); code != 128+15 {
		t.Errorf("got exit code %d, want the command's, 143", code)
	}
}

// A program that only bears the supervisor's name ends.
func TestASupervisorWithoutAWrapperEnds(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/run"
	cmd := &exec.Cmd{Path: self0(), Args: []string{supervisorName, "/usr/bin/touch", "touch", file}}
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("got %v and %q, want a quiet end", err, out)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("it was run: %v", err)
	}
}

func TestALostOneIsKilledOnceItsSupervisorIsFrozenToo(t *testing.T) {
	mark := "COORDD_TEST_MARK=" + uuid.NewString()
	p := start(t, Command{Args: []string{self0(), "be-tree", "so"}, Env: append(os.Environ(), mark), Grace: 100 * time.Millisecond})
	p.says(t, "complete")
	freeze(t, p.supervisor.Process.Pid)
	p.Stop()
	if got, want := p.Wait(), (Result{Signal: syscall.SIGKILL, Stopped: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if commands, supervisors := marked(t, mark); len(commands)+len(supervisors) > 0 {
		t.Errorf("after Wait: got %v alive, and supervisors %v, want none", commands, supervisors)
	}
}

func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// A wrapper that was frozen past the time, beside its supervisor, kills what is left when it thaws, and does not say of
// what it has just killed that it does not die.
func TestWhatIsKilledLateMayDieToo(t *testing.T) {
	t.Parallel()
	w := wrap(t, "6s", `exec "$@"`, self0(), "be-tree", "xgsosg")
	w.says(t, "complete")
	until := clock.SinceBoot() + 6*time.Second
	_, supervisors := marked(t, w.mark)
	if len(supervisors) != 1 {
		t.Fatalf("got supervisors %v, want one", supervisors)
	}
	freeze(t, supervisors[0])
	freeze(t, w.cmd.Process.Pid)
	time.Sleep(until + patience + 100*time.Millisecond - clock.SinceBoot())
	w.signal(t, syscall.SIGCONT)
	if code := w.exit(t); code != 128+9 {
		t.Errorf("got exit code %d, want that of a command that was killed, 137", code)
	}
	if commands, supervisors := marked(t, w.mark); len(commands)+len(supervisors) > 0 {
		t.Errorf("after its end: got %v alive, and supervisors %v, want none", commands, supervisors)
	}
}

// One process of a wrapper's fails in each round, in one of the ways in which it can, at any time; nothing
// of any command is alive when its time has come.
func TestNothingRunsPastItsTime(t *testing.T) {
	first := *seed
	if first == 0 {
		first = rand.Uint64N(1 << 32)
	}
	for i := range *rounds {
		seed := first + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			undisturbed(t, func() error { return playRound(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func playRound(t *testing.T, r *rand.Rand) error {
	allowed := 4*time.Second + time.Duration(r.Int64N(int64(2*time.Second))) // not all at once
	var ways strings.Builder
	ways.WriteByte('x') // the command itself lives
	for range r.IntN(5) {
		ways.WriteByte("xgsoh"[r.IntN(5)])
	}
	before := clock.SinceBoot()
	w := wrap(t, allowed.String(), `exec "$@"`, self0(), "be-tree", ways.String())
	w.says(t, "complete")
	until := clock.SinceBoot() + allowed
	_, supervisors := marked(t, w.mark)
	victim, name := w.cmd.Process.Pid, "wrapper"
	switch r.IntN(3) {
	case 0:
		victim, name = supervisors[0], "supervisor"
	case 1:
		commands, _ := marked(t, w.mark, w.cmd.Process.Pid)
		victim, name = commands[r.IntN(len(commands))], "command"
	}
	how := []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL}[r.IntN(2)]
	wait := time.Duration(r.Int64N(int64(allowed)))
	t.Logf("tree %q, %v of the %s after %v", ways.String(), how, name, wait)
	time.Sleep(wait - (clock.SinceBoot() - before))
	if err := syscall.Kill(victim, how); err != nil && wait < allowed/3 {
		t.Errorf("nobody was hit: %v", err)
	}
	time.Sleep(until - clock.SinceBoot())
	if commands, _ := marked(t, w.mark, w.cmd.Process.Pid); len(commands) > 0 {
		return fmt.Errorf("past its time: got %v alive, want none", commands)
	}
	return nil
}

// What the kernel does not let die is told of when its time has come, and killed by the supervisor when it can be; by
// the wrapper for as long, if there is none any more.
func TestWhatDoesNotDieIsSaid(t *testing.T) {
	for _, bereft := range []bool{false, true} {
		t.Run(fmt.Sprint("supervisor killed ", bereft), func(t *testing.T) { withoutDeath(t, bereft) })
	}
}

func withoutDeath(t *testing.T, bereft bool) {
	freezer := fmt.Sprintf("/sys/fs/cgroup/freezer/coordd-test-%d", os.Getpid())
	if err := os.Mkdir(freezer, 0o700); err != nil {
		t.Skipf("a process that does not die by SIGKILL needs a control group of version 1 with a freezer: %v", err)
	}
	t.Cleanup(func() {
		eventually(t, "an empty control group", func() bool { return os.Remove(freezer) == nil })
	})
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(freezer+"/"+file, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	until := clock.SinceBoot() + time.Second
	p := start(t, Command{Args: []string{"sleep", "3600"}, Notice: time.Millisecond, Until: until})
	write("cgroup.procs", strconv.Itoa(p.Pid()))
	write("freezer.state", "FROZEN")
	if bereft {
		if err := p.supervisor.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	told := time.AfterFunc(30*time.Second, func() {
		t.Error("it is not told of")
		write("freezer.state", "THAWED")
	})
	r := p.Wait()
	told.Stop()
	if now := clock.SinceBoot(); !errors.Is(r.Err, ErrAlive) || !r.Stopped || !strings.Contains(r.Err.Error(), strconv.Itoa(p.Pid())) || now < until {
		t.Errorf("%v after its time: got %+v, want it to tell of %d", now-until, r, p.Pid())
	}
	write("freezer.state", "THAWED")
	eventually(t, "its end", func() bool {
		_, _ = syscall.Wait4(p.Pid(), nil, syscall.WNOHANG, nil) // where it has become this process's
		return syscall.Kill(p.Pid(), 0) != nil
	})
}
