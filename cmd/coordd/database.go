package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
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

// open opens an existing database for a command that looks. The caller closes the pool.
func (f *databaseFlag) open(ctx context.Context) (*coordd.DB, error) {
	t, err := f.target()
	if err != nil {
		return nil, err
	}
	if file, ok := strings.CutPrefix(t.String(), "sqlite:"); ok {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return nil, usageError{fmt.Errorf("there is no file %s here: start `coordd run` first, or name your database with --dsn or COORDD_DSN", file)}
		}
	}
	return t.Open(ctx, 5*time.Second)
}
