package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
	"github.com/coordd/coordd/migrations"
)

// What coordd's own tables say, and who may use them.

const (
	// stmtMaxTTL is the longest TTL that this database allows, in milliseconds. 0 rows: no schema.
	stmtMaxTTL = `select value from coordd_meta where name = 'max_ttl'`

	// stmtQuarantined is for how many microseconds the latest quarantine has lasted, if that is
	// still told; else -1.
	stmtQuarantined = `select coalesce({now} - max(at_us), -1) from coordd_events where topic = ? and action = 'quarantined'`
)

func (p *patient) schema(ctx context.Context) (Finding, error) {
	version, err := p.db.Schema(ctx)
	const up = "run `coordd migrate up`"
	switch {
	case errors.Is(err, coordd.ErrForbidden):
		f := unanswered(err)
		return fail(f.Fix, "%s", f.Found), nil
	case err != nil:
		return Finding{}, err
	case version == 0:
		return fail(up, "coordd's tables are not in this database and its search path"), nil
	case version < coordd.SchemaVersion:
		return fail(up, "the tables are of version %d, and this program needs %d", version, coordd.SchemaVersion), nil
	case version > coordd.SchemaVersion:
		return fail("upgrade coordd", "the tables are of version %d, and this program knows %d", version, coordd.SchemaVersion), nil
	}
	return fine("the tables are of version %d", version), nil
}

// privileges tries each of them on no row.
func (p *patient) privileges(ctx context.Context) (Finding, error) {
	tried, untried := 0, 0
	var lacking []string
	for _, need := range migrations.Needs() {
		var missing []string
		for _, privilege := range need.Privileges {
			err := p.try(ctx, privilege, need.Table)
			switch {
			case errors.Is(err, coordd.ErrForbidden):
				missing = append(missing, privilege)
			case errors.Is(err, coordd.ErrSchema), errors.Is(err, coordd.ErrReadOnly):
				untried++ // that is for others to say
				continue
			case err != nil:
				return Finding{}, err
			}
			tried++
		}
		if missing != nil {
			lacking = append(lacking, strings.Join(missing, ", ")+" on "+need.Table)
		}
	}
	switch {
	case tried == 0:
		return Finding{}, nil
	case lacking != nil:
		return fail(p.fix(ctx, "grant "+strings.Join(lacking, " to USER; grant ")+" to USER (`coordd migrate grants` prints all that are needed)"),
			"lacking: %s", strings.Join(lacking, "; ")), nil
	}
	if untried > 0 {
		return fine("all %d that could be tried, and %d could not", tried, untried), nil
	}
	return fine("all %d that are needed", tried), nil
}

// try does to a table, as far as the server is concerned, what needs a privilege: it matches no
// row.
func (p *patient) try(ctx context.Context, privilege, table string) error {
	var stmt string
	switch privilege {
	case "select":
		stmt = `select * from ` + table + ` where 1 = 0`
	case "insert":
		stmt = `insert into ` + table + ` select * from ` + table + ` where 1 = 0`
	case "update":
		column, err := p.column(ctx, table)
		if err != nil {
			return err
		}
		stmt = `update ` + table + ` set ` + column + ` = ` + column + ` where 1 = 0`
	case "delete":
		stmt = `delete from ` + table + ` where 1 = 0`
	default:
		return fmt.Errorf("nothing is known to try %s by", privilege)
	}
	_, err := p.db.Exec(ctx, stmt)
	return err
}

// column is any one of a table's.
func (p *patient) column(ctx context.Context, table string) (string, error) {
	rows, err := p.db.Pool().QueryContext(ctx, `select * from `+table+` where 1 = 0`)
	if err != nil {
		return "", p.db.Explain(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err = errors.Join(err, rows.Err()); err != nil {
		return "", p.db.Explain(err)
	}
	return columns[0], nil
}

func (p *patient) history(ctx context.Context) (Finding, error) {
	h, err := journal.ReadHistory(ctx, p.db.Queries)
	switch {
	case errors.Is(err, coordd.ErrForbidden) && p.words.fingerprintFix != "":
		return fail(p.fix(ctx, p.words.fingerprintFix), "its fingerprint cannot be seen, and no beat succeeds without: %s", unanswered(err).Found), nil
	case err != nil:
		return Finding{}, err
	case h.Number() == 0:
		return fine("none is accepted yet: the first member does that; the fingerprint is %s", h.Fingerprint()), nil
	case !h.Intact():
		return warn("make sure that the old server takes no writes any more, and start a member: it records this and waits until all old rights have run out",
			"%s: another server took over, or a backup was restored",
			strings.TrimPrefix(h.Lost(0).Error(), coordd.ErrHistoryLost.Error()+": ")), nil
	case h.Quarantined():
		return p.quarantine(ctx)
	case p.target.File() != "":
		return fine("intact; a file has no fingerprint, so that it was restored shows only to members that have seen more"), nil
	}
	return fine("intact; the fingerprint is %s", h.Fingerprint()), nil
}

// quarantine says how long one has lasted and what ends it.
func (p *patient) quarantine(ctx context.Context) (Finding, error) {
	var us int64
	if err := p.db.Get(ctx, []any{&us}, stmtQuarantined, journal.TopicHistory); err != nil {
		return Finding{}, err
	}
	longest, err := p.maxTTL(ctx)
	if err != nil {
		return Finding{}, err
	}
	since := ""
	if us >= 0 {
		since = fmt.Sprintf(" for %v", short(time.Duration(us)*time.Microsecond))
	}
	return warn("keep a member running, and wait: it ends by itself",
		"in quarantine%s: nothing is granted before a member has watched it for the longest TTL, %v, and a little more", since, longest), nil
}

func (p *patient) maxTTL(ctx context.Context) (time.Duration, error) {
	var ms int64
	err := p.db.Get(ctx, []any{&ms}, stmtMaxTTL)
	return time.Duration(ms) * time.Millisecond, err
}

func (p *patient) ttl(ctx context.Context) (Finding, error) {
	longest, err := p.maxTTL(ctx)
	if err != nil {
		return Finding{}, err
	}
	if p.cfg.TTL > longest {
		return fail("lower the TTL, or raise max_ttl in coordd_meta (milliseconds)", "a TTL of %v is over this database's limit of %v", p.cfg.TTL, longest), nil
	}
	return fine("%v, of %v at the most", p.cfg.TTL, longest), nil
}
