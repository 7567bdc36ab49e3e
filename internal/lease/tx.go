package lease

import (
	"context"

	"github.com/coordd/coordd"
)

// stmtLock keeps everybody else from the row until the transaction ends. 0 rows: it has gone.
const stmtLock = `update coordd_leases set guards = guards + 1, since_us = {now} where name = ?`

// Lock keeps a name for as long as a transaction of the caller's lasts. Who makes its row has it
// by that. The row comes first: on the MySQL family, at its default level, an update that finds
// none locks the gap, and two who have done so cannot both make theirs. One that is there may be
// removed in between (Tidy).
func Lock(ctx context.Context, tx coordd.Queries, name string) error {
	for {
		changed, err := tx.Exec(ctx, stmtBegin, name)
		if err == nil && changed == 0 {
			changed, err = tx.Exec(ctx, stmtLock, name)
		}
		if err != nil || changed == 1 {
			return err
		}
	}
}
