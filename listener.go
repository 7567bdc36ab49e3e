package coordd

import "context"

// Listener hears that the database may have changed, sooner than by asking. It is a hint
// that shortens a wait and nothing more: whoever listens also looks from time to time, as a
// ring may be missing, late, or about nothing. Package pglisten has one for PostgreSQL.
type Listener interface {
	// Listen returns a channel that receives a value after a change. It holds one, so that
	// several rings may arrive as one and none is lost between two waits. It is never
	// closed; call stop when done with it.
	Listen() (rings <-chan struct{}, stop func())
}

// Ring wakes those who listen on this database, on whichever server, if it has a way to do
// so, and else does nothing. Call it after a commit and not in a transaction. An error says
// no more than that they may have to find out by themselves.
func (db *DB) Ring(ctx context.Context) error {
	d, err := db.server.resolve(ctx, db.pool)
	if err != nil || d.WakeUp == "" {
		return err
	}
	_, err = db.Exec(ctx, d.WakeUp, "")
	return err
}
