package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every flag of `coordd run` is a setting, and may be given in three ways of which the first that says
// something counts: on the command line (--listen), in the environment (COORDD_LISTEN), in a
// YAML file that --config names (listen: ...). Other commands take from the latter two what they share with it.

// environment is what the names of settings in the environment begin with.
const environment = "COORDD_"

// fromFile names where a setting came from, in the order in which they count.
const (
	fromFlag        = "flag"
	fromEnvironment = "environment"
	fromFile        = "file"
	fromDefault     = "default"
)

// origins tell where each setting of a command came from.
type origins map[string]string

// where are settings of which the higher source sets aside those of the lower ones: they
// say the same thing in different ways.
var where = []string{"dsn", "dsn-file", "addr"}

// shares says whether a flag of a command means what it means for `run`. The label of a job is not that of a
// member, and what is dangerous is said on the command line.
func shares(cmd *cobra.Command, flag string) bool {
	return cmd.Name() == "run" || flag == "ttl" || cmd.InheritedFlags().Lookup(flag) != nil
}

// settle gives the flags of a command the values that environment and file have for them; known
// are all settings there are.
func settle(cmd *cobra.Command, known []string) (origins, error) {
	from := origins{}
	cmd.Flags().Visit(func(f *pflag.Flag) { from[f.Name] = fromFlag })
	environ, err := fromEnv(known)
	if err != nil {
		return nil, err
	}
	configFile := cmd.Flag("config").Value.String()
	if configFile == "" {
		configFile = environ.String("config")
	}
	written, err := fromYAML(configFile, known)
	if err != nil {
		return nil, err
	}
	for _, source := range []struct {
		name   string
		values *koanf.Koanf
	}{{fromEnvironment, environ}, {fromFile, written}} {
		told := slices.ContainsFunc(where, func(name string) bool { return from[name] != "" })
		var failed error
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Changed || failed != nil || !shares(cmd, f.Name) || !source.values.Exists(f.Name) || told && slices.Contains(where, f.Name) {
				return
			}
			from[f.Name] = source.name
			failed = set(cmd.Flags(), f, source.values.Get(f.Name), source.name)
		})
		if failed != nil {
			return nil, failed
		}
	}
	return from, nil
}

// settingsOf are the flags of `run`.
func settingsOf(run *cobra.Command) (known []string) {
	run.InheritedFlags() // makes those of the root its own
	run.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			known = append(known, f.Name)
		}
	})
	return known
}

func fromEnv(known []string) (*koanf.Koanf, error) {
	k := koanf.New("\x00") // keys have no levels
	err := k.Load(env.Provider("\x00", env.Opt{Prefix: environment, TransformFunc: func(key, value string) (string, any) {
		name := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(key, environment)), "_", "-")
		if value == "" || !slices.Contains(known, name) {
			return "", nil // others have variables of that prefix too
		}
		return name, value
	}}), nil)
	return k, err
}

func fromYAML(path string, known []string) (*koanf.Koanf, error) {
	k := koanf.New("\x00")
	if path == "" {
		return k, nil
	}
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		var unreadable *os.PathError
		if errors.As(err, &unreadable) {
			return nil, usageError{fmt.Errorf("the configuration file cannot be read: %w", err)}
		}
		return nil, usageError{fmt.Errorf("%s is no YAML: check its indentation and quotes", path)} // what it says may be a secret
	}
	for name := range k.Raw() {
		if !slices.Contains(known, name) {
			return nil, usageError{fmt.Errorf("%s: there is no setting %q%s", path, name, near(name, known))}
		}
	}
	return k, nil
}

// near suggests what somebody may have meant.
func near(name string, known []string) string {
	settings := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, k := range known {
		settings.AddCommand(&cobra.Command{Use: k, Run: func(*cobra.Command, []string) {}})
	}
	if found := settings.SuggestionsFor(name); len(found) > 0 {
		return ": did you mean " + found[0] + "?"
	}
	return "; `coordd config print` has them all"
}

// set gives a flag a value that was not on the command line.
func set(flags *pflag.FlagSet, f *pflag.Flag, value any, source string) error {
	var text []string
	switch v := value.(type) {
	case map[string]any:
		for key, v := range v {
			text = append(text, fmt.Sprint(key, "=", v))
		}
		slices.Sort(text)
	case []any:
		for _, v := range v {
			text = append(text, fmt.Sprint(v))
		}
	default:
		text = []string{fmt.Sprint(v)}
	}
	for _, one := range text {
		if err := flags.Set(f.Name, one); err != nil {
			return usageError{fmt.Errorf("what the %s has for %s is no %s", source, f.Name, f.Value.Type())}
		}
	}
	return nil
}
