package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/render"
	"github.com/coordd/coordd/migrations"
)

func migrateCommand(database *sourceFlags) *cobra.Command {
	migrate := &cobra.Command{
		Use:   "migrate",
		Short: "Make coordd's tables, or take them away",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	migrate.AddCommand(migrateUp(database), migrateDown(database), migrateStatus(database), migrateSQL(), migrateGrants(database))
	return migrate
}

// migrationBound ends a statement of a migration, which may wait for others.
const migrationBound = time.Minute

func migrateUp(database *sourceFlags) *cobra.Command {
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

func migrateDown(database *sourceFlags) *cobra.Command {
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

func migrateStatus(database *sourceFlags) *cobra.Command {
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

func migrateGrants(database *sourceFlags) *cobra.Command {
	var user string
	grants := &cobra.Command{
		Use:   "grants [postgres|mysql]",
		Short: "Print what to grant to the user of everything but migrate, and no more",
		Long: `Print the statements that grant a user what it needs for everything but migrate, and no more.
Without a product they are in the words of the database that the DSN names, which is not asked.`,
		Example: `  coordd migrate grants postgres --user app
  coordd migrate grants mysql --user app@10.0.0.%`,
		ValidArgs: []string{"postgres", "mysql"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{errors.New("say for which database, once: postgres or mysql")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			product := ""
			if len(args) == 1 {
				product = args[0]
			} else {
				target, err := database.target()
				if err != nil {
					return err
				}
				product = target.Kind()
			}
			script, err := migrations.Grants(product, user)
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), script)
			return err
		},
	}
	grants.Flags().StringVar(&user, "user", "coordd", "to whom; of MySQL also name@host")
	return grants
}
