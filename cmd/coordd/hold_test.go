package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/internal/clock"
	"github.com/coordd/coordd/internal/dbtest"
)

var crashes = flag.Int("crashes", 10, "how often TestTheNextLeaderIsElectedWhenACommandCrashes kills one")

// A worker is the command of tests. It heeds no signal that it may ignore, and writes into a file of its own, named for its
// token, when it began and when it last ran: two stamps by the machine's clock. More of it, in sessions of their own,
// do the same.
func beWorker(dir, more string) {
	began := clock.SinceBoot()
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	file, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%d", os.Getenv("COORDD_TOKEN"), os.Getpid())))
	if err != nil {
		panic(err)
	}
	if n, _ := strconv.Atoi(more); n > 0 {
		exe, err := os.Executable()
		if err != nil {
			panic(err)
		}
		next := exec.Command(exe, "be-worker", dir, strconv.Itoa(n-1))
		next.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := next.Start(); err != nil {
			panic(err)
		}
	}
	var stamps [16]byte
	binary.LittleEndian.PutUint64(stamps[:8], uint64(began))
	for {
		binary.LittleEndian.PutUint64(stamps[8:], uint64(clock.SinceBoot()))
		if _, err := file.WriteAt(stamps[:], 0); err != nil {
			panic(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// ran is when the workers of a token ran.
type ran struct {
	token       int64
	first, last time.Duration
}

// work reads what all workers have written, by token.
func work(t *testing.T, dir string) (all []ran) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	byToken := map[int64]ran{}
	for _, f := range files {
		text, _, _ := strings.Cut(f.Name(), "-")
		token, err := strconv.ParseInt(text, 10, 64)
		stamps, unreadable := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil || unreadable != nil {
			t.Fatal(err, unreadable)
		}
		if len(stamps) < 16 {
			continue // it has just begun
		}
		first, last := time.Duration(binary.LittleEndian.Uint64(stamps)), time.Duration(binary.LittleEndian.Uint64(stamps[8:]))
		r, seen := byToken[token]
		if !seen {
			r = ran{token, first, last}
		}
		byToken[token] = ran{token, min(r.first, first), max(r.last, last)}
	}
	for _, r := range byToken {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b ran) int { return int(a.token - b.token) })
	return all
}

// overlaps says which workers ran when the next ones did already.
func overlaps(all []ran) (found []string) {
	for i := 1; i < len(all); i++ {
		if a, b := all[i-1], all[i]; a.last >= b.first {
			found = append(found, fmt.Sprintf("token %d ran for %v after token %d began", a.token, a.last-b.first, b.token))
		}
	}
	return found
}

func TestOverlapsAreFound(t *testing.T) {
	if got := overlaps([]ran{{1, 10, 20}, {2, 21, 30}, {5, 31, 40}}); got != nil {
		t.Errorf("one after the other: got %q, want none", got)
	}
	if got := overlaps([]ran{{1, 10, 22}, {2, 21, 30}, {3, 30, 40}}); len(got) != 2 || !strings.HasPrefix(got[0], "token 1 ran for 1ns after token 2") {
		t.Errorf("two overlaps: got %q", got)
	}
}

var printedTerm = regexp.MustCompile(`(?m)^\d+$`)

// It measures too: go test ./cmd/coordd -run Crashes -v -crashes 100
func TestTheNextLeaderIsElectedWhenACommandCrashes(t *testing.T) {
	dsn := dbtest.PostgresSchema(t)
	dbtest.Migrated(t, dsn)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var elected, working []time.Duration
	for i := range *crashes {
		election := fmt.Sprint("crash-", i)
		dir := t.TempDir()
		first := start(t, dsn, "elect", election, "--", exe, "be-worker", dir, "0")
		dbtest.Eventually(t, "a worker", func() bool { return len(work(t, dir)) == 1 })
		next := start(t, dsn, "elect", election, "--", exe, "be-worker", dir, "0")
		if i%2 == 1 { // every other time it has no command, and says when it leads
			next.cmd.Process.Kill()
			next = start(t, dsn, "elect", election)
		}
		dbtest.Eventually(t, "a candidate", func() bool {
			_, stdout, _ := run(t, "elections", "-o", "json", "--dsn", dsn)
			return strings.Contains(stdout, fmt.Sprintf("-%d\"", next.cmd.Process.Pid))
		})
		files, err := filepath.Glob(filepath.Join(dir, "1-*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("got %q, %v, want one worker", files, err)
		}
		_, text, _ := strings.Cut(filepath.Base(files[0]), "-")
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		killed := clock.SinceBoot()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			for deadline := killed + dbtest.Patience; !printedTerm.MatchString(next.output.String()) && clock.SinceBoot() < deadline; {
				time.Sleep(time.Millisecond)
			}
			elected = append(elected, clock.SinceBoot()-killed)
		} else {
			dbtest.Eventually(t, "the next worker", func() bool { return len(work(t, dir)) == 2 })
			working = append(working, work(t, dir)[1].first-killed)
		}
		if code := first.exit(t); code != 137 {
			t.Errorf("whose command was killed: got exit code %d, want 137", code)
		}
		next.signal(t, syscall.SIGKILL)
	}
	for what, took := range map[string][]time.Duration{"elected": elected, "at work": working} {
		slices.Sort(took)
		if len(took) == 0 {
			continue
		}
		median, longest := took[len(took)/2], took[len(took)-1]
		t.Logf("from the kill of the command until the next one is %s: median %v, at most %v, of %d", what, median, longest, len(took))
		if bound := dbtest.Stretch(time.Second); median > bound {
			t.Errorf("the next one is %s after %v, want less than %v", what, median, bound)
		}
	}
}
