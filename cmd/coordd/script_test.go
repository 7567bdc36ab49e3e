package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/coordd/coordd/internal/dbtest"
)

// The scripts under testdata/script show what a user would type and see, on every database.
// Beside the commands of testscript they have
//
//	until REGEXP COMMAND...    run a command again until its output matches
//	exits CODE COMMAND...      run a command that exits with a code
//	begin NAME COMMAND...      run a command in the background
//	signal SIGNAL NAME         send it a signal
//	ended NAME CODE            wait until it exits with a code; its output is in the file NAME
//	gone FILE                  wait until the process is gone whose number is in a file
//	connect                    make the tables, and have commands use the database, or a daemon, app-7 at API
//
// and the variables DSN, of an empty database, and API and API2, addresses that nobody listens on. Those that connect are run twice:
// the condition [daemon] says that it is the second time.
func TestScripts(t *testing.T) {
	dbtest.AsAdministrator(t) // scripts migrate
	dbtest.Each(t, func(t *testing.T, dsn string) {
		bin := t.TempDir()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(exe, filepath.Join(bin, "coordd")); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob("testdata/script/*.txtar")
		if err != nil || len(files) == 0 {
			t.Fatalf("got %d scripts, %v", len(files), err)
		}
		run := func(t *testing.T, file string, throughDaemon bool) {
			testscript.Run(t, testscript.Params{
				Files:              []string{file},
				RequireUniqueNames: true,
				Setup: func(env *testscript.Env) error {
					env.Setenv(beCoordd, "1")
					env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
					env.Setenv("HOME", env.WorkDir)
					env.Setenv("API", freeAddress(t))
					env.Setenv("API2", freeAddress(t))
					env.Values[throughADaemon{}] = throughDaemon
					env.Setenv("DSN", emptyDSN(t, dsn))
					env.Values[scriptProcesses{}] = map[string]*inBackground{}
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"until": until, "exits": exits, "begin": begin, "signal": sendSignal, "ended": hasEnded, "gone": isGone, "connect": connect,
				},
				Condition: func(name string) (bool, error) {
					if name != "daemon" {
						return false, fmt.Errorf("there is no condition %s", name)
					}
					return throughDaemon, nil
				},
			})
		}
		for _, file := range files {
			run(t, file, false)
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(script), "\nconnect\n") {
				t.Run("through-a-daemon", func(t *testing.T) { run(t, file, true) })
			}
		}
	})
}

// throughADaemon is the key of whether a script's commands ask a daemon.
type throughADaemon struct{}

// connect is a command of scripts.
func connect(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: connect")
	}
	if !ts.Value(throughADaemon{}).(bool) {
		ts.Setenv("COORDD_DSN", ts.Getenv("DSN"))
		ts.Check(ts.Exec("coordd", "migrate", "up"))
		return
	}
	begin(ts, false, []string{"daemon", "coordd", "run", "--migrate", "--dsn", ts.Getenv("DSN"), "--name", "app-7", "--listen", ts.Getenv("API")})
	ts.Setenv("COORDD_ADDR", ts.Getenv("API"))
	until(ts, false, []string{"^app-7 +alive", "coordd", "members"})
}

// emptyDSN is that of an empty database of the same kind.
func emptyDSN(t *testing.T, like string) string {
	switch {
	case strings.HasPrefix(like, "postgres"):
		return dbtest.PostgresSchema(t)
	case strings.HasPrefix(like, "mysql"):
		return dbtest.MySQLSchema(t)
	}
	return dbtest.SQLiteFile(t)
}

// givenAddresses are those that some test has.
var givenAddresses sync.Map

// freeAddress is one that nobody listens on and no other test is given, below the ports that kernels give
// to clients and those of dbtest's servers.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprint("127.0.0.1:", 10000+rand.IntN(10000))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		l.Close()
		if _, given := givenAddresses.LoadOrStore(address, true); !given {
			return address
		}
	}
	t.Fatal("no free address")
	return ""
}

// until is the command of scripts.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP COMMAND...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	deadline := time.Now().Add(dbtest.Patience)
	for {
		err := ts.Exec(args[1], args[2:]...)
		got := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if err == nil && want.MatchString(got) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("after %v: got %s (%v), want %s", dbtest.Patience, got, err, want)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// exits is a command of scripts.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("got exit code %d, want %s", got, args[0])
	}
}

// inBackground is a process of a script.
type inBackground struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// begin is a command of scripts.
func begin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: begin NAME COMMAND...")
	}
	path, err := exec.LookPath(args[1])
	if args[1] == "coordd" {
		path, err = os.Executable()
	}
	ts.Check(err)
	out, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer out.Close()
	p := &inBackground{cmd: exec.Command(path, args[2:]...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), out, out
	for _, name := range []string{beCoordd, "PATH", "HOME", "DSN", "COORDD_DSN", "COORDD_ADDR"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	ts.Check(p.cmd.Start())
	go func() { p.cmd.Wait(); close(p.done) }()
	ts.Defer(func() { p.cmd.Process.Kill(); <-p.done })
	ts.Value(scriptProcesses{}).(map[string]*inBackground)[args[0]] = p
}

// scriptProcesses is the key of a script's processes.
type scriptProcesses struct{}

func processOf(ts *testscript.TestScript, name string) *inBackground {
	p := ts.Value(scriptProcesses{}).(map[string]*inBackground)[name]
	if p == nil {
		ts.Fatalf("no process %s was begun", name)
	}
	return p
}

// sendSignal is a command of scripts.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal SIGNAL NAME")
	}
	s := unix.SignalNum("SIG" + args[0])
	if s == 0 {
		ts.Fatalf("there is no signal %s", args[0])
	}
	ts.Check(processOf(ts, args[1]).cmd.Process.Signal(s))
}

// hasEnded is a command of scripts.
func hasEnded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ended NAME CODE")
	}
	p := processOf(ts, args[0])
	select {
	case <-p.done:
	case <-time.After(dbtest.Patience):
		ts.Fatalf("%s runs after %v: %s", args[0], dbtest.Patience, ts.ReadFile(args[0]))
	}
	if got := p.cmd.ProcessState.ExitCode(); fmt.Sprint(got) != args[1] {
		ts.Fatalf("%s: got exit code %d, want %s: %s", args[0], got, args[1], ts.ReadFile(args[0]))
	}
}

// isGone is a command of scripts.
func isGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone FILE")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[0])))
	ts.Check(err)
	for deadline := time.Now().Add(dbtest.Patience); lives(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("process %d of %s lives after %v", pid, args[0], dbtest.Patience)
		}
	}
}

// lives says whether a process runs, and not only waits for its parent to ask.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// Every command that shows something takes -o, and knows all formats.
func TestEveryReadingCommandTakesAnOutputFormat(t *testing.T) {
	writes := map[string]bool{ // what it does, not what it shows
		"run": true, "drain": true, "undrain": true, "forget": true, "up": true, "down": true, "check": true, "token": true,
		"add": true, "remove": true, "pause": true, "resume": true, "define": true,
		"elect": true, "lock": true, "resign": true, "transfer": true, "release": true,
	}
	texts := map[string]bool{ // one format only
		"sql": true, "grants": true, "version": true, "openapi": true, "completion": true, "help": true,
	}
	seen := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if cmd.HasSubCommands() && cmd.Name() != "locks" || writes[cmd.Name()] || texts[cmd.Name()] || cmd.Parent() != nil && cmd.Parent().Name() == "completion" {
			return
		}
		seen++
		if f := cmd.Flag("output"); f == nil || f.Shorthand != "o" || !strings.Contains(f.Usage, "table|wide|json|jsonl|yaml|name") {
			t.Errorf("%s shows something and has no -o with every format", cmd.CommandPath())
		}
	}
	root := rootCommand()
	root.InitDefaultCompletionCmd()
	walk(root)
	if seen < 9 {
		t.Fatalf("got %d commands that show something, want more", seen)
	}
}
