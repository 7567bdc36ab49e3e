package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "coordd",
		Short: "Which servers are alive, by the SQL database you already have",
		Long: `coordd keeps servers in agreement through the SQL database that they already have.

Try it:   coordd run --dev      three members in one process, on a SQLite file
          coordd members -w     in another terminal

Exit codes:
` + exitCodes,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArguments,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath())}
	})
	var database databaseFlag
	root.PersistentFlags().StringVar(&database.dsn, "dsn", "", "the database, as a URL; or COORDD_DSN in the environment, which hides it from ps (default sqlite:coordd.db)")
	root.AddCommand(runCommand(&database), membersCommand(&database), migrateCommand(&database), versionCommand())
	return root
}

// noArguments is cobra.NoArgs with the exit code of a wrong command line.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError{fmt.Errorf("%s takes no argument, and %q was given (see `%s --help`)", cmd.CommandPath(), args[0], cmd.CommandPath())}
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
