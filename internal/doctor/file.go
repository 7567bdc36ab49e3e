package doctor

import (
	"context"
	"os"
	"path/filepath"
)

// What a SQLite file lies on.

// journal wants readers and the writer not to wait for each other.
func (p *patient) journal(ctx context.Context) (Finding, error) {
	if p.words.journal == "" {
		return Finding{}, nil
	}
	var mode string
	if err := p.db.Get(ctx, []any{&mode}, p.words.journal); err != nil {
		return Finding{}, err
	}
	if mode != "wal" {
		return warn("move the file to a local disk, where SQLite can keep a write-ahead log", "%s and not wal: readers wait for the writer, and it for them", mode), nil
	}
	return fine("%s", mode), nil
}

// file says whether what is beside the file can be written, and locked.
func (p *patient) file(context.Context) (Finding, error) {
	file := p.target.File()
	if file == "" {
		return Finding{}, nil
	}
	dir := filepath.Dir(file)
	name, fares, err := fileSystem(dir)
	const move = "move the file to a local disk, or use PostgreSQL, MySQL or MariaDB where there are several hosts"
	switch {
	case err != nil:
		return Finding{}, err
	case fares == Failed:
		return fail(move, "%s is on %s: where hosts share a file, its locks hold nobody off and writes are lost", dir, name), nil
	case fares == Warning:
		return warn(move, "%s is on %s, which other hosts may share: then its locks hold nobody off", dir, name), nil
	}
	if err := writable(dir); err != nil {
		return fail("let this user write the directory and the file: SQLite makes files beside it", "%s: %s", dir, err), nil
	}
	if err := writable(file); err != nil {
		return fail("let this user write the directory and the file: SQLite makes files beside it", "%s: %s", file, err), nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return Finding{}, err
	}
	return fine("%d kB on %s, and its directory can be written", info.Size()/1024, name), nil
}
