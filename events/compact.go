package events

import (
	"context"
	"fmt"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// Compact deletes the events that are older than keep, by the database's clock, and says
// how many. A watch that had not got beyond them ends with [ErrCompacted].
func Compact(ctx context.Context, db *coordd.DB, keep time.Duration) (deleted int64, err error) {
	for {
		n, err := journal.Compact(ctx, db, journal.Retention{Age: keep})
		deleted += n
		if err != nil {
			return deleted, fmt.Errorf("compact events: %w", err)
		}
		if n == 0 {
			return deleted, nil
		}
	}
}
