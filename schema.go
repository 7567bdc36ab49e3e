package coordd

import (
	"context"
	"errors"
	"fmt"
)

// SchemaVersion is the version of the tables that this program works with: the number
// of the newest file in migrations/.
const SchemaVersion = 5

const stmtSchema = `select coalesce(max(version_id), 0) from coordd_migrations where is_applied`

// Schema is the version of the tables that the database has; 0 means that it has none.
func (db *DB) Schema(ctx context.Context) (version int64, err error) {
	err = db.Get(ctx, []any{&version}, stmtSchema)
	if errors.Is(err, ErrSchema) {
		err = nil
	}
	return version, err
}

// CheckSchema fails with [ErrSchema] if the database's tables are missing, or older or
// newer than this program, and says which command mends it.
func (db *DB) CheckSchema(ctx context.Context) error {
	version, err := db.Schema(ctx)
	switch {
	case err != nil:
		return err
	case version == 0:
		return fmt.Errorf("%w: this database has none of them (run `coordd migrate up`; with goose itself, give it `-table coordd_migrations`)", ErrSchema)
	case version < SchemaVersion:
		return fmt.Errorf("%w: they are of version %d and it needs %d (run `coordd migrate up`)", ErrSchema, version, SchemaVersion)
	case version > SchemaVersion:
		return fmt.Errorf("%w: they are of version %d and it knows %d (upgrade coordd, or run `coordd migrate down` with the newer coordd)", ErrSchema, version, SchemaVersion)
	}
	return nil
}
