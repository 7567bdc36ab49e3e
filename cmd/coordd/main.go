// Command coordd keeps servers in agreement through the SQL database that they already
// have. `coordd run` makes this process a member; the other commands look.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/coordd/coordd/internal/child"
)

func main() {
	child.Main() // `coordd lock` has another coordd look after its command
	// A closed pipe must not kill a member that has not left: with this, a write to it fails.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ends := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(os.Interrupt) { // or the command of `coordd lock` would not ignore it
		ends = append(ends, os.Interrupt)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs one command line and returns its exit code. Data goes to stdout, all else
// to stderr.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil && !errors.As(err, new(ended)) {
		fmt.Fprintf(stderr, "coordd: %s\n", strings.Join(strings.Fields(err.Error()), " ")) // drivers take several lines
	}
	return exitCodeOf(cmd, err)
}
