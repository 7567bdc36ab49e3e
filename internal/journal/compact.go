package journal

import (
	"context"
	"time"

	"github.com/coordd/coordd"
)

// Retention says which events are kept. An event is deleted when neither field keeps it.
type Retention struct {
	Age   time.Duration // those younger than this, by the database's clock
	Count int64         // this many of the newest
}

const (
	stmtOldest = `select r.value, e.revision, {now} - e.at_us
		from coordd_events e join coordd_meta r on r.name = 'revision'
		where e.revision > ? order by e.revision limit ?`

	// stmtCompacted comes before stmtDelete, so that those who compact at once take turns.
	// 0 rows: another has been here.
	stmtCompacted = `update coordd_meta set value = ? where name = 'compacted' and value < ?`
	stmtDelete    = `delete from coordd_events where revision <= ?` // 0 rows: there is nothing to delete
)

// oldest is how many events Compact looks at, so the most that it deletes at once.
const oldest = 500

// Compact deletes the oldest events that need not be kept, 500 at most, in one transaction
// with the note of how far it went, and says how many: call it again until that is 0. What
// it deletes is a beginning of the log: no event is deleted before one of a lower revision.
//
// The database's clock has a say in what is worth keeping and in nothing else; where it
// steps ahead, readers may be told [ErrCompacted] that had hoped for more.
func Compact(ctx context.Context, db *coordd.DB, keep Retention) (deleted int64, err error) {
	upTo, err := compactable(ctx, db, keep)
	if err != nil {
		return 0, err
	}
	if upTo == 0 {
		return 0, nil
	}
	err = db.Tx(ctx, func(tx coordd.Queries) error {
		deleted = 0
		changed, err := tx.Exec(ctx, stmtCompacted, upTo, upTo)
		if err != nil || changed == 0 {
			return err
		}
		deleted, err = tx.Exec(ctx, stmtDelete, upTo)
		return err
	})
	if err != nil {
		return 0, err
	}
	return deleted, nil
}

// compactable is the newest revision up to which nothing need be kept, among the oldest. An event
// that is dated so far ahead that the clock must have been wrong says nothing about its age: it
// goes with the next one that is too old.
func compactable(ctx context.Context, db *coordd.DB, keep Retention) (upTo int64, err error) {
	type row struct{ newest, revision, age int64 }
	young := keep.Age.Microseconds()
	for after, most := int64(0), int64(0); ; {
		rows, err := coordd.All(ctx, db.Queries, func(r *row) []any {
			return []any{&r.newest, &r.revision, &r.age}
		}, stmtOldest, after, oldest)
		if err != nil {
			return 0, err
		}
		if most == 0 && len(rows) > 0 {
			most = rows[len(rows)-1].revision
		}
		for _, r := range rows {
			if -young < r.age && r.age < young || r.revision > r.newest-keep.Count {
				return min(upTo, most), nil
			}
			if r.age >= young {
				upTo = r.revision
			}
			after = r.revision
		}
		if upTo > 0 || len(rows) < oldest {
			return min(upTo, most), nil
		}
	}
}
