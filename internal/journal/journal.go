// Package journal keeps the change log: what has changed, numbered in the order of commits.
//
// A revision is taken from one counter row that a changing transaction bumps as the last
// thing it does. The row stays locked until that transaction ends, so whoever has read
// revision r will never see an event appear at or below r. (Sequences and auto-increment
// do not have that property: a lower number may be committed later.) For the same reason
// nothing that runs inside a caller's own transaction may touch that row, as it would keep
// it locked for as long as the caller likes; such events go to an outbox first.
//
// An event is in the log or the outbox if, and only if, the change that it tells of was
// committed. From the outbox it comes into the log once, by whichever member moves it.
//
// What it relies on: committed writes survive, reads go to the primary, and one statement
// sees one snapshot, which every database coordd knows does at READ COMMITTED and above.
//
// What it costs: three statements for the events of one transaction; one for each page that
// is read; one for each event that is moved from the outbox, and five for each hundred.
package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/coordd/coordd"
)

// Event is one change.
type Event struct {
	Revision int64
	At       time.Time // by the database's clock: for people
	Topic    string    // what kind of thing has changed: "member"
	Subject  string    // its name
	Action   string    // what has happened to it: "joined"
	MemberID string    // of the member that it happened to, or that did it; may be empty
	Data     string    // JSON: the thing after the change, or as it last was
}

// ErrCompacted says that events which a reader has not seen are deleted.
var ErrCompacted = errors.New("the events after this revision have been deleted")

const stmtRevision = `select value from coordd_meta where name = 'revision'`

// Revision is the newest revision; 0 before the first event.
func Revision(ctx context.Context, q coordd.Queries) (revision int64, err error) {
	err = q.Get(ctx, []any{&revision}, stmtRevision)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNoRevision
	}
	return revision, err
}

var errNoRevision = fmt.Errorf("%w: coordd_meta lacks rows", coordd.ErrSchema)
