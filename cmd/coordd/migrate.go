package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/render"
	"github.com/coordd/coordd/migrations"
)

func migrateCommand(database *databaseFlag) *cobra.Command {
	migrate := &cobra.Command{
		Use:   "migrate",
		Short: "Make coordd's tables, or take them away",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	migrate.AddCommand(migrateUp(database), migrateDown(database), migrateStatus(database), migrateSQL())
	return migrate
}

// migrationBound ends a statement of a migration, which may wait for others.
const migrationBound = time.Minute

func migrateUp(database *databaseFlag) *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Bring the tables to this program's version; any number may do it at once",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return database.use(cmd.Context(), migrationBound, true, func(db *coordd.DB) error {
				if err := migrations.Up(cmd.Context(), db); err != nil {
					return err
				}
				cmd.PrintErrf("the tables are of version %d\n", coordd.SchemaVersion)
				return nil
			})
		},
	}
}

func migrateDown(database *databaseFlag) *cobra.Command {
	var yes bool
	down := &cobra.Command{
		Use:   "down",
		Short: "Undo the newest migration, with all that its tables hold",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return usageError{fmt.Errorf("this drops tables and all that they hold: stop every member, and say --yes")}
			}
			return database.use(cmd.Context(), migrationBound, false, func(db *coordd.DB) error {
				return migrations.Down(cmd.Context(), db)
			})
		},
	}
	down.Flags().BoolVar(&yes, "yes", false, "drop the tables of the newest migration")
	return down
}

func migrateStatus(database *databaseFlag) *cobra.Command {
	var output string
	status := &cobra.Command{
		Use:   "status",
		Short: "Show which migrations the database has",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := render.CheckFormat(output); err != nil {
				return usageError{err}
			}
			return database.use(cmd.Context(), readWithin, false, func(db *coordd.DB) error {
				known, err := migrations.Status(cmd.Context(), db)
				if err != nil {
					return err
				}
				return render.Write(cmd.OutOrStdout(), output, known, migrationColumns)
			})
		},
	}
	outputFlag(status, &output)
	return status
}

var migrationColumns = []render.Column[migrations.Migration]{
	{Title: "NAME", Cell: func(m migrations.Migration) string { return m.Name }},
	{Title: "VERSION", Cell: func(m migrations.Migration) string { return fmt.Sprint(m.Version) }},
	{Title: "APPLIED", Cell: func(m migrations.Migration) string {
		if m.Applied {
			return "yes"
		}
		return "no"
	}},
}

func migrateSQL() *cobra.Command {
	return &cobra.Command{
		Use:       "sql " + strings.Join(migrations.Products, "|"),
		Short:     "Print what up would run on an empty database, to be run by hand",
		ValidArgs: migrations.Products,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("say for which database: %s", strings.Join(migrations.Products, ", "))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			script, err := migrations.Script(args[0])
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), script)
			return err
		},
	}
}
