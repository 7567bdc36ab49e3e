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

func openForMigration(cmd *cobra.Command, database *databaseFlag) (*coordd.DB, error) {
	t, err := database.target()
	if err != nil {
		return nil, err
	}
	return t.Open(cmd.Context(), migrationBound)
}

func migrateUp(database *databaseFlag) *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Bring the tables to this program's version; any number may do it at once",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			db, err := openForMigration(cmd, database)
			if err != nil {
				return err
			}
			defer db.Pool().Close()
			if err := migrations.Up(cmd.Context(), db); err != nil {
				return err
			}
			cmd.PrintErrf("the tables are of version %d\n", coordd.SchemaVersion)
			return nil
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
			db, err := openForMigration(cmd, database)
			if err != nil {
				return err
			}
			defer db.Pool().Close()
			return migrations.Down(cmd.Context(), db)
		},
	}
	down.Flags().BoolVar(&yes, "yes", false, "drop the tables of the newest migration")
	return down
}

// migration is one as a command shows it.
type migration struct {
	Version int64  `json:"version"`
	Name    string `json:"name"`
	Applied bool   `json:"applied"`
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
			db, err := database.open(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Pool().Close()
			known, err := migrations.Status(cmd.Context(), db)
			if err != nil {
				return err
			}
			var shown []migration
			for _, m := range known {
				shown = append(shown, migration(m))
			}
			return render.Write(cmd.OutOrStdout(), output, shown, migrationColumns)
		},
	}
	outputFlag(status, &output)
	return status
}

var migrationColumns = []render.Column[migration]{
	{Title: "NAME", Cell: func(m migration) string { return m.Name }},
	{Title: "VERSION", Cell: func(m migration) string { return fmt.Sprint(m.Version) }},
	{Title: "APPLIED", Cell: func(m migration) string {
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
