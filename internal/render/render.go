// Package render writes what a command has read: as a table for people, or for programs.
package render

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"sigs.k8s.io/yaml"
)

// Formats are what -o takes.
var Formats = []string{"table", "wide", "json", "jsonl", "yaml", "name"}

// CheckFormat refuses what Write does not know.
func CheckFormat(format string) error {
	if !slices.Contains(Formats, format) {
		return fmt.Errorf("there is no such output format: say one of %s", strings.Join(Formats, ", "))
	}
	return nil
}

// A Column of a table shows one thing of an item. A wide one is shown only on demand.
type Column[T any] struct {
	Title string
	Wide  bool
	Cell  func(T) string
}

// Write writes the items in a format. Programs get their JSON fields; people get the
// columns, of which the first is what the item is called.
func Write[T any](w io.Writer, format string, items []T, columns []Column[T]) error {
	switch format {
	case "json":
		b, err := json.MarshalIndent(items, "", "  ")
		return writeAll(w, append(b, '\n'), err)
	case "jsonl":
		encoder := json.NewEncoder(w)
		for _, item := range items {
			if err := encoder.Encode(item); err != nil {
				return err
			}
		}
		return nil
	case "yaml":
		b, err := yaml.Marshal(items)
		return writeAll(w, b, err)
	case "name":
		for _, item := range items {
			if _, err := fmt.Fprintln(w, columns[0].Cell(item)); err != nil {
				return err
			}
		}
		return nil
	}
	return table(w, items, slices.DeleteFunc(slices.Clone(columns), func(c Column[T]) bool {
		return c.Wide && format != "wide"
	}))
}

func table[T any](w io.Writer, items []T, columns []Column[T]) error {
	tabs := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cell func(Column[T]) string) {
		for i, c := range columns {
			if i > 0 {
				fmt.Fprint(tabs, "\t")
			}
			fmt.Fprint(tabs, cell(c))
		}
		fmt.Fprintln(tabs)
	}
	row(func(c Column[T]) string { return c.Title })
	for _, item := range items {
		row(func(c Column[T]) string { return c.Cell(item) })
	}
	return tabs.Flush()
}

func writeAll(w io.Writer, b []byte, err error) error {
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}
