package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/dsn"
)

// databaseFlag is the database that a command works on.
type databaseFlag struct{ dsn string }

const defaultDSN = "sqlite:coordd.db"

// target parses what flag or environment say.
func (f *databaseFlag) target() (*dsn.Target, error) {
	s := f.dsn
	if s == "" {
		s = os.Getenv("COORDD_DSN")
	}
	if s == "" {
		s = defaultDSN
	}
	t, err := dsn.Parse(s)
	if err != nil {
		return nil, usageError{err}
	}
	return t, nil
}

// use opens the database for one command, and says of every error where it was. A file
// must exist, unless the command may make it.
func (f *databaseFlag) use(ctx context.Context, bound time.Duration, mayCreate bool, do func(*coordd.DB) error) error {
	t, err := f.target()
	if err != nil {
		return err
	}
	if file := t.File(); file != "" && !mayCreate {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return usageError{fmt.Errorf("there is no file %s here: start `coordd run` first, or name your database with --dsn or COORDD_DSN", file)}
		}
	}
	db, err := t.Open(ctx, bound)
	if err != nil {
		return err
	}
	defer db.Pool().Close()
	if err := do(db); err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}
