package coordd

import (
	"context"
	"errors"
	"fmt"
)

// SchemaVersion is the version of the tables that this program works with: the number
// of the newest file in migrations/.
const SchemaVersion = 1

const stmtSchema = `select coalesce(max(version_id), 0) from coordd_migrations where is_applied`

// CheckSchema fails with [ErrSchema] if the database's tables are missing, or older or
// newer than this program, and says which command mends it.
func (db *DB) CheckSchema(ctx context.Context) error {
	var version int64
	err := db.Get(ctx, []any{&version}, stmtSchema)
	switch {
	case errors.Is(err, ErrSchema):
		return fmt.Errorf("%w: this database has none of them (run `coordd migrate up`; with goose itself, give it `-table coordd_migrations`)", ErrSchema)
	case err != nil:
		return err
	case version < SchemaVersion:
		return fmt.Errorf("%w: they are of version %d and it needs %d (run `coordd migrate up`)", ErrSchema, version, SchemaVersion)
	case version > SchemaVersion:
		return fmt.Errorf("%w: they are of version %d and it knows %d (upgrade coordd, or run `coordd migrate down` with the newer coordd)", ErrSchema, version, SchemaVersion)
	}
	return nil
}
