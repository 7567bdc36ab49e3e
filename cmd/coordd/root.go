package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "coordd",
		Short: "Who is alive, who leads and who holds a lock, by the SQL database you already have",
		Long: `coordd keeps servers in agreement through the SQL database that they already have.

Try it:   coordd run --dev      three members in one process, on a SQLite file
          coordd members -w     in another terminal

Exit codes:
` + exitCodes,
		SuggestionsMinimumDistance: 2,

		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%s (see `%s --help`)", withoutValues(err), cmd.CommandPath())}
	})
	var from sourceFlags
	from.add(root)
	root.PersistentFlags().String("config", "", "a YAML file with settings, as `listen: 127.0.0.1:7401`; each flag of run is one, and COORDD_LISTEN in the environment too")
	run := runCommand(&from)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		from.origins, err = settle(cmd, settingsOf(run))
		return err
	}
	root.AddCommand(
		run, statusCommand(&from), membersCommand(&from), drainCommand(&from), undrainCommand(&from), forgetCommand(&from),
		electionsCommand(&from), leaderCommand(&from), electCommand(&from), resignCommand(&from), transferCommand(&from),
		locksCommand(&from), lockCommand(&from), jobsCommand(&from), assignCommand(&from),
		eventsCommand(&from), watchCommand(&from), doctorCommand(&from), migrateCommand(&from), configCommand(&from),
		tokenCommand(), openAPICommand(), versionCommand(),
	)
	return root
}

// withoutValues says what is wrong with a flag and not what was given, as that may be a DSN.
func withoutValues(err error) string {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		name, _, _ := strings.Cut(unknown.GetSpecifiedName(), "=")
		return "there is no flag --" + name
	case errors.As(err, &invalid):
		return "what was given for --" + invalid.GetFlag().Name + " is no " + invalid.GetFlag().Value.Type()
	case errors.As(err, &missing):
		return "--" + missing.GetSpecifiedName() + " needs a value"
	}
	return "there is no such flag; long ones have two dashes"
}

// noArguments is cobra.NoArgs with the exit code of a wrong command line.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	// What was given is not repeated: it may be a piece of a DSN.
	return usageError{fmt.Errorf("%s takes no argument, and %d were given (see `%s --help`)", cmd.CommandPath(), len(args), cmd.CommandPath())}
}

// knownCommand is noArguments for the root, where an argument was meant as a command.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usageError{fmt.Errorf("there is no such command: did you mean `coordd %s`?", near[0])}
	}
	return usageError{errors.New("there is no such command (see `coordd --help`)")}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "coordd", version())
			return err
		},
	}
}
