package child

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminalPair is a terminal, and the end of it where people sit.
func terminalPair(t *testing.T) (people, programs *os.File) {
	t.Helper()
	people, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { people.Close() })
	raw, err := people.SyscallConn() // Fd would make it block
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if err := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil {
		t.Fatal(err)
	}
	programs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { programs.Close() })
	return people, programs
}

// A person types; the command reads and is interrupted, and what comes after it reads again.
func TestACommandHasTheTerminal(t *testing.T) {
	t.Parallel()
	people, programs := terminalPair(t)
	command := `trap 'echo interrupted; exit 4' INT; echo begun; read line; echo "read $line"; while :; do sleep 0.01; done`
	shell := exec.Command("/bin/sh", "-c", `"$@"; echo "code $?"; read line; echo "then $line"`, "sh", self0(), "be-wrapper", "1h", "sh", "-c", command)
	shell.Stdin, shell.Stdout, shell.Stderr = programs, programs, programs
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shell.Process.Kill(); shell.Wait() })
	person := &output{from: people}
	types := func(keys, answer string) {
		t.Helper()
		if _, err := people.WriteString(keys); err != nil {
			t.Fatal(err)
		}
		person.says(t, answer)
	}
	person.says(t, "begun")
	types("\x1a", "^Z")
	types("hello\n", "read hello")
	types("\x03", "interrupted")
	person.says(t, "code 4")
	types("world\n", "then world")
}
