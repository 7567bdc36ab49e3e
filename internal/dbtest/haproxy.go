package dbtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// HAProxy starts an HAProxy, which ends with the test. Where the program is missing the test is skipped, or fails where CI is
// set.
func HAProxy(tb testing.TB, configuration string) {
	tb.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/haproxy") // Debian's
	}
	if err != nil {
		stopWithout(tb, fmt.Errorf("HAProxy: %w: %w\nrun scripts/testdeps, or `apt-get install haproxy`", errNone, err))
	}
	file := filepath.Join(tb.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		tb.Fatal(err)
	}
	log := new(bytes.Buffer)
	cmd := exec.CommandContext(thisRun.context(), program, "-db", "-f", file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes(nil, syscall.SIGKILL)
	proxy, err := spawn(cmd)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		proxy.kill() // nobody writes to its log any more
		if tb.Failed() {
			tb.Logf("the end of HAProxy's log:\n%s", lastLines(log.String()))
		}
	})
}
