package main

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coordd/coordd/internal/dsn"
	"github.com/coordd/coordd/internal/render"
)

// setting is a setting as it may be shown.
type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"` // a DSN without its password
	From  string `json:"from"`  // flag, environment, file or default
}

var settingColumns = []render.Column[setting]{
	{Title: "NAME", Cell: func(s setting) string { return s.Name }},
	{Title: "VALUE", Cell: func(s setting) string { return orDash(s.Value) }},
	{Title: "FROM", Cell: func(s setting) string { return s.From }},
}

// shownSettings are the settings of a command, without secrets.
func shownSettings(cmd *cobra.Command, from origins) (shown []setting) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		s := setting{Name: f.Name, Value: f.Value.String(), From: from[f.Name]}
		if s.From == "" {
			s.From = fromDefault
		}
		if f.Name == "dsn" && s.Value != "" {
			target, err := dsn.Parse(s.Value)
			if err != nil {
				s.Value = "what cannot be read as a DSN"
			} else {
				s.Value = target.String()
			}
		}
		shown = append(shown, s)
	})
	return shown
}

func configCommand(from *sourceFlags) *cobra.Command {
	config := &cobra.Command{
		Use:   "config",
		Short: "Check or show the settings of `coordd run`",
		Long: `Check or show the settings of ` + "`coordd run`" + `, as flags, environment and a file have them. Each flag is a
setting. What is given on the command line counts first, then the environment (COORDD_LISTEN for
--listen), then the YAML file that --config or COORDD_CONFIG names:

  dsn-file: /run/secrets/coordd-dsn
  name: app-7
  label: {zone: b}
  listen: 127.0.0.1:7400`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	config.AddCommand(configCheck(from), configPrint(from))
	return config
}

// runSettings are the settings that `coordd run` would have, and what it would make of them.
func runSettings(cmd *cobra.Command, given *sourceFlags) (*cobra.Command, *runConfig, error) {
	var from sourceFlags
	root := &cobra.Command{Use: "coordd"}
	from.add(root)
	root.PersistentFlags().String("config", "", "")
	run, cfg := newRunCommand(&from)
	root.AddCommand(run)
	known := settingsOf(run)
	var failed error
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if given.origins[f.Name] == fromFlag {
			failed = errors.Join(failed, run.Flags().Set(f.Name, f.Value.String()))
		}
	})
	if failed != nil {
		return nil, nil, failed
	}
	var err error
	cfg.from.origins, err = settle(run, known)
	return run, cfg, err
}

func configCheck(from *sourceFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say whether `coordd run` would take its settings; it connects to nothing",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, cfg, err := runSettings(cmd, from)
			if err != nil {
				return err
			}
			if _, err := cfg.members(); err != nil {
				return err
			}
			if _, err := cfg.api.load(); err != nil {
				return err
			}
			target, err := cfg.from.target()
			if err != nil {
				return err
			}
			cmd.PrintErrf("the settings are in order; the database is %s\n", target)
			return nil
		},
	}
}

func configPrint(from *sourceFlags) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "print",
		Short: "Show the settings of `coordd run`, without secrets, and where each comes from",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			run, cfg, err := runSettings(cmd, from)
			if err != nil {
				return err
			}
			return render.Write(cmd.OutOrStdout(), output, shownSettings(run, cfg.from.origins), settingColumns)
		},
	}
	outputFlag(command, &output)
	return command
}
