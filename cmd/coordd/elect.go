package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/client"
)

func electCommand(from *sourceFlags) *cobra.Command {
	h := &holding{from: from}
	var cfg election.Config
	command := &cobra.Command{
		Use:   "elect NAME [-- COMMAND [ARG...]]",
		Short: "Campaign, and lead while a command runs, or until a signal",
		Long: `Campaign in an election, and run a command once elected. It leads for as long as the command runs. The
command has no shell, a process group of its own, and in its environment COORDD_ELECTION, COORDD_TOKEN (the term, which grows
with each leader, for ever) and COORDD_MEMBER. Signals are passed on to it. When the leadership is lost, or somebody asks for
it with resign, transfer or drain, all of its processes are told SIGTERM, and killed before another can lead. Its end
gives the leadership up at once, and its exit code is that of coordd; ` + "`coordd --help`" + ` has the others. It does not campaign again: have
it started again by what has started it.

Without a command it leads until a signal, or until the leadership is lost; its term is printed.`,
		Example: `  coordd elect scheduler --value 10.0.0.7:9000 -- ./scheduler
  coordd leader scheduler -o name`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			cfg.Name, h.args, err = nameAndCommand(cmd, args)
			if err != nil {
				return err
			}
			h.what, h.env = fmt.Sprintf("election %q", cfg.Name), "COORDD_ELECTION="+cfg.Name
			h.want = client.Want{Election: cfg.Name, Priority: cfg.Priority, Value: cfg.Value}
			h.take = func(ctx context.Context, s *heartbeat.Session) (held, error) {
				l, err := election.Campaign(ctx, s, cfg)
				return leadership{l}, err
			}
			return h.run(cmd)
		},
	}
	h.add(command)
	f := command.Flags()
	f.IntVar(&cfg.Priority, "priority", 0, "comes before all lower ones among those who wait; it deposes nobody")
	f.StringVar(&cfg.Value, "value", "", "published with the leadership, for everybody to read")
	return command
}

// leadership is an election's right.
type leadership struct{ *election.Leadership }

func (l leadership) Token() int64                      { return l.Term() }
func (l leadership) Release(ctx context.Context) error { return l.Resign(ctx) }
