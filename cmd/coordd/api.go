package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coordd/coordd/httpapi"
)

// apiConfig is what `coordd run` was told of its HTTP API.
type apiConfig struct {
	listen    string
	tokens    string
	webConfig string
	hosts     []string
	pprof     bool
}

func (c *apiConfig) add(f *pflag.FlagSet) {
	f.StringVar(&c.listen, "listen", "127.0.0.1:7400", "address of the HTTP API, or off; one that others can reach needs --tokens and --web-config")
	f.StringVar(&c.tokens, "tokens", "", "a file that says who may use the API; see docs/http.md")
	f.StringVar(&c.webConfig, "web-config", "", "a file of TLS settings, as Prometheus's exporters take it; see docs/http.md")
	f.StringSliceVar(&c.hosts, "host", nil, "name by which the API is reached, beside localhost; repeatable")
	f.BoolVar(&c.pprof, "pprof", false, "serve /debug/pprof/ to administrators")
}

// api is where the API is served, and to whom.
type api struct {
	listener net.Listener // nil: no API
	httpapi.Config
}

// load reads the files that it names, and refuses an address that they do not protect.
func (c *apiConfig) load() (a *api, err error) {
	a = &api{Config: httpapi.Config{Hosts: c.hosts, Pprof: c.pprof}}
	if c.tokens != "" {
		if a.Tokens, err = httpapi.LoadTokens(c.tokens); err != nil {
			return nil, usageError{err}
		}
	}
	if c.webConfig != "" {
		if a.TLS, err = httpapi.LoadTLS(c.webConfig); err != nil {
			return nil, usageError{err}
		}
	}
	if c.listen != "off" {
		if err := a.CheckListen(c.listen); err != nil {
			return nil, usageError{err}
		}
	}
	return a, nil
}

// listenOn takes the port before anything is written, so that a second daemon of a host
// fails at once and whole.
func (c *apiConfig) listenOn() (*api, error) {
	a, err := c.load()
	if err != nil || c.listen == "off" {
		return a, err
	}
	if a.listener, err = net.Listen("tcp", c.listen); err != nil {
		return nil, usageError{fmt.Errorf("%w: if another coordd serves there, choose --listen 127.0.0.1:PORT, or off", err)}
	}
	return a, nil
}

// serve serves the API until ctx ends.
func (d *daemon) serve(ctx context.Context) error {
	if d.api.listener == nil {
		return nil
	}
	d.log.Info("serving", "address", d.api.listener.Addr().String())
	cfg := d.api.Config
	cfg.DB, cfg.Version, cfg.Want, cfg.Sessions, cfg.Logger = d.db, release(), d.want, d.current, d.log
	cfg.Groups, cfg.Leads = d.groups, d.leading
	cfg.Loops, cfg.Settings = d.loops.show, func() any { return d.settings }
	cfg.Doctor = func(ctx context.Context) ([]httpapi.Finding, error) { return d.examine(ctx), nil }
	return httpapi.Serve(ctx, d.api.listener, cfg)
}

// supervised tells systemd when the daemon is ready and when it ends, if systemd has started it,
// and reads the token file again on SIGHUP.
func (d *daemon) supervised(ctx context.Context, hangUp func()) error {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	notify := func(state string) {
		if _, err := systemd.SdNotify(false, state); err != nil {
			d.log.Warn("systemd cannot be told", "error", err)
		}
	}
	joined := d.joined
	for {
		select {
		case <-ctx.Done():
			notify(systemd.SdNotifyStopping)
			return nil
		case <-joined:
			joined = nil
			notify(systemd.SdNotifyReady)
		case <-reload:
			if isTerminal(os.Stderr) {
				hangUp() // it has closed
				continue
			}
			d.reload()
		}
	}
}

// reload reads the files again that say who may use the API. What cannot be read leaves what it
// said before.
func (d *daemon) reload() {
	files := map[string]func() error{}
	if d.api.Tokens != nil {
		files["tokens"] = d.api.Tokens.Reload
	}
	if d.api.TLS != nil {
		files["web-config"] = d.api.TLS.Reload
	}
	for name, read := range files {
		if err := read(); err != nil {
			d.log.Error("a file is not taken, and what it said before holds", "setting", name, "error", err)
		} else {
			d.log.Info("a file was read again", "setting", name)
		}
	}
	d.log.Info("reloaded: all other settings take a restart")
}

func openAPICommand() *cobra.Command {
	var old bool
	command := &cobra.Command{
		Use:   "openapi",
		Short: "Print the description of the HTTP API, as OpenAPI 3.1",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v31, v30 := httpapi.OpenAPI(release())
			if old {
				v31 = v30
			}
			var pretty any
			if err := json.Unmarshal(v31, &pretty); err != nil {
				return err
			}
			b, err := json.MarshalIndent(pretty, "", "  ")
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), string(b))
			}
			return err
		},
	}
	command.Flags().BoolVar(&old, "3.0", false, "as OpenAPI 3.0.3, for tools that know no newer one")
	return command
}

func tokenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "token NAME viewer|operator|admin",
		Short: "Make a token for the HTTP API, and the line of the token file that knows it",
		Long: `Make a token for the HTTP API, and the line of the token file that knows it. The token is shown
once, on stderr; the line, on stdout, has only its hash:

  coordd token grafana viewer >> tokens`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("%s takes a name and a role (see `%s --help`)", cmd.CommandPath(), cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			token, line, err := httpapi.NewToken(args[0], httpapi.Role(args[1]))
			if err != nil {
				return usageError{err}
			}
			cmd.PrintErrln(token)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), line)
			return err
		},
	}
}

// loops remembers when what the daemon does again and again last succeeded.
type loops struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (l *loops) did(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]time.Time{}
	}
	l.last[name] = time.Now()
}

func (l *loops) show() (shown []httpapi.Loop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range []string{loopOutbox, loopTidy} {
		shown = append(shown, httpapi.Loop{Name: name, LastSuccess: l.last[name]})
	}
	return shown
}

// The loops of a daemon beside its sessions.
const (
	loopOutbox = "outbox" // moves events from the outbox into the log
	loopTidy   = "tidy"   // deletes what is old
)
