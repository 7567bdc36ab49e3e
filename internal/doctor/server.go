package doctor

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coordd/coordd"
)

// What the server is, and how it is set.

func (p *patient) version(ctx context.Context) (Finding, error) {
	var version string
	if err := p.db.Get(ctx, []any{&version}, p.words.version); err != nil {
		return Finding{}, err
	}
	fix := "upgrade the server: " + p.words.oldestName + " is the oldest that will do"
	if slices.Compare(numbers(version), p.words.oldest) < 0 {
		return fail(fix, "%s is too old", version), nil
	}
	if p.words.proof != "" {
		var proof string
		err := p.db.Get(ctx, []any{&proof}, p.words.proof)
		if known := new(coordd.Error); err != nil && !errors.As(err, &known) {
			return fail(fix, "%s is too old: it does not understand `%s`", version, p.words.proof), nil
		} else if err != nil {
			return Finding{}, err
		}
	}
	return fine("%s", version), nil
}

// numbers are those that a version begins with.
func numbers(version string) (all []int) {
	for part := range strings.SplitSeq(version, ".") {
		end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(part)
		}
		n, err := strconv.Atoi(part[:end])
		if err != nil {
			break
		}
		all = append(all, n)
		if end < len(part) {
			break // "18beta1", "10.11.9-MariaDB"
		}
	}
	return all
}

// primary says whether anything can be written.
func (p *patient) primary(ctx context.Context) (Finding, error) {
	if p.words.readOnly == "" {
		return Finding{}, nil
	}
	var why, fix string
	if err := p.db.Get(ctx, []any{&why, &fix}, p.words.readOnly); err != nil {
		return Finding{}, err
	}
	if why != "" {
		return fail(p.fix(ctx, fix), "nothing can be written here: %s", why), nil
	}
	return fine("it takes writes"), nil
}

func (p *patient) isolation(ctx context.Context) (Finding, error) {
	if p.words.isolation == "" {
		return Finding{}, nil
	}
	var level string
	if err := p.db.Get(ctx, []any{&level}, p.words.isolation); err != nil {
		return Finding{}, err
	}
	level = strings.ToLower(strings.ReplaceAll(level, "-", " "))
	fix := p.fix(ctx, p.words.isolationFix)
	switch p.words.levels[level] {
	case OK:
		return fine("%s, each statement commits by itself", level), nil
	case Failed:
		return fail(fix, "%s: statements see what is not committed, and so may events that never were", level), nil
	}
	return warn(fix, "%s: statements that meet each other fail and are run again", level), nil
}

// durability says whether a crash loses what was acknowledged.
func (p *patient) durability(ctx context.Context) (Finding, error) {
	if p.words.lossy == "" {
		return Finding{}, nil
	}
	type setting struct{ name, value, fix string }
	lossy, err := coordd.All(ctx, p.db.Queries, func(s *setting) []any { return []any{&s.name, &s.value, &s.fix} }, p.words.lossy)
	if err != nil {
		return Finding{}, err
	}
	var found, fixes []string
	for _, s := range lossy {
		found = append(found, s.name+" is "+s.value)
		fixes = append(fixes, s.fix)
	}
	if len(found) == 0 {
		return fine("what is committed survives a crash"), nil
	}
	return warn(p.fix(ctx, strings.Join(fixes, "; ")),
		"%s: a crash may lose commits that were acknowledged, and with them grants", strings.Join(found, ", ")), nil
}

// scarce is the share of a server's connections, in percent, below which it is short of them.
const scarce = 10

func (p *patient) connections(ctx context.Context) (Finding, error) {
	if p.words.room == "" {
		return Finding{}, nil
	}
	var used, most int
	if err := p.db.Get(ctx, []any{&used, &most}, p.words.room); err != nil {
		return Finding{}, err
	}
	if (most-used)*100 < most*scarce {
		return warn("raise the server's max_connections, or close what is idle: who loses a connection may not get another",
			"%d of %d are in use, %d are left", used, most, max(0, most-used)), nil
	}
	return fine("%d of %d are in use", used, most), nil
}

func (p *patient) transactions(ctx context.Context) (Finding, error) {
	if p.words.oldTransaction == "" {
		return Finding{}, nil
	}
	hidden := ""
	if p.words.unseen != "" {
		var unseen int
		if err := p.db.Get(ctx, []any{&unseen}, p.words.unseen); err != nil {
			return Finding{}, err
		}
		if unseen > 0 {
			hidden = p.fix(ctx, "; those of other users cannot be seen ("+p.words.unseenFix+")")
		}
	}
	var seconds float64
	var whose, undo string
	err := p.db.Get(ctx, []any{&seconds, &whose, &undo}, p.words.oldTransaction)
	switch age := time.Duration(seconds * float64(time.Second)); {
	case errors.Is(err, coordd.ErrForbidden):
		return fine("%s", p.fix(ctx, "open ones cannot be seen ("+p.words.unseenFix+")")), nil
	case errors.Is(err, sql.ErrNoRows):
		return fine("none is open%s", hidden), nil
	case err != nil:
		return Finding{}, err
	case age >= p.cfg.Old:
		return warn("find out why it is open, and end it: "+undo, "one is open for %v (%s): %s%s", short(age), whose, p.words.oldHarm, hidden), nil
	default:
		return fine("the oldest that is open is so for %v%s", short(max(0, age)), hidden), nil
	}
}

// fix puts the user's name into what is to be done for it.
func (p *patient) fix(ctx context.Context, text string) string {
	user := "USER"
	if p.words.user != "" {
		// Without an answer the word stays.
		_ = p.db.Get(ctx, []any{&user}, p.words.user)
	}
	return strings.ReplaceAll(text, "USER", user)
}
