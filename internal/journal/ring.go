package journal

import (
	"context"
	"time"

	"github.com/coordd/coordd"
)

// ringing is how long a caller waits for the bell at most.
const ringing = time.Second

// Ring tells those who listen that something was committed, after a commit and never inside
// of a transaction: notifying there makes all commits of a PostgreSQL server wait for each
// other. It is a hint, so it takes a second at most and does not say whether it failed.
func Ring(ctx context.Context, db *coordd.DB) {
	ctx, cancel := context.WithTimeout(ctx, ringing)
	defer cancel()
	_ = db.Ring(ctx, "") // whoever is not woken looks a little later
}
