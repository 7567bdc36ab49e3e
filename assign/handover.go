package assign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/internal/journal"
)

// giveAway hands over what has stopped, and takes back what is not to move after all though a
// hand-over may be under way.
func (k *keeper) giveAway(ctx context.Context) error {
	moving, back := map[string][]*holding{}, []*holding(nil)
	for _, h := range k.slots {
		switch {
		case h.stale || h.gone || h.phase < stopped:
		case h.target != "":
			moving[h.target] = append(moving[h.target], h)
		case h.phase == sent:
			back = append(back, h)
		}
	}
	if len(moving) > 0 {
		if err := k.send(ctx, "moved", stmtHandOver, moving); err != nil {
			return fmt.Errorf("hand slots of group %q over: %w", k.group, err)
		}
	}
	if len(back) > 0 {
		if err := k.send(ctx, "kept", stmtRetake, map[string][]*holding{"": back}); err != nil {
			return fmt.Errorf("take %d slots of group %q back: %w", len(back), k.group, err)
		}
	}
	return nil
}

// send gives slots away, by their targets, or moves their epoch on, where there is none. Whatever becomes of
// it, what is read next decides: nothing runs again before that.
func (k *keeper) send(ctx context.Context, action, stmt string, slots map[string][]*holding) error {
	for _, some := range slots {
		for _, h := range some {
			h.phase, h.stale = sent, true
		}
	}
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	var changed int64
	var moved, rest []*holding
	err := k.DB.Tx(ctx, func(tx coordd.Queries) error {
		changed, moved, rest = 0, nil, nil
		version, err := k.nextVersion(ctx, tx)
		if err != nil {
			return err
		}
		until := k.enough(ctx, k.Timeout/4)
		for target, some := range slots {
			args := []any{version, k.group, k.session.ID()}
			if target != "" {
				args = append(args, target)
			}
			n, left, err := move(ctx, tx, until, stmt, args, slotEpochs(some))
			if err != nil {
				return err
			}
			changed += n
			moved, rest = append(moved, some[:len(some)-len(left)]...), append(rest, some[len(some)-len(left):]...)
		}
		if changed == 0 {
			return nil
		}
		return journal.Append(ctx, tx, planned(k.group, action, k.session.ID(), version, changed))
	})
	if err == nil {
		journal.Ring(ctx, k.DB)
		k.poke()
	}
	if err != nil || changed < int64(len(moved)) || stmt != stmtHandOver {
		k.anew = true
		return err
	}
	for _, h := range moved {
		delete(k.slots, h.slot)
	}
	for _, h := range rest {
		h.stale = false // it goes with the next ones; as sent, as it may have been before
	}
	return nil
}

func slotEpochs(some []*holding) (pairs []slotEpoch) {
	for _, h := range some {
		pairs = append(pairs, slotEpoch{h.slot, h.epoch})
	}
	return pairs
}

// giveBack says that this member serves the group no more, and gives back what it has but for the slots
// whose work has not returned.
func (k *keeper) giveBack(ctx context.Context) error {
	for {
		if more, err := k.giveSomeBack(ctx); err != nil || !more {
			return err
		}
	}
}

// giveSomeBack is as much of giveBack as one transaction has time for; more is left if it says so.
func (k *keeper) giveSomeBack(ctx context.Context) (more bool, err error) {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	err = k.DB.Tx(ctx, func(tx coordd.Queries) error {
		version, err := k.nextVersion(ctx, tx)
		if err != nil {
			return err
		}
		// Nobody else changes a slot of the group before this transaction has ended.
		owned, err := coordd.All(ctx, tx, func(p *slotEpoch) []any { return []any{&p.slot, &p.epoch} }, stmtOwned, k.group, k.session.ID())
		if err != nil {
			return err
		}
		owned = slices.DeleteFunc(owned, func(p slotEpoch) bool { return k.slots[p.slot] != nil && k.slots[p.slot].phase < stopped })
		given, rest, err := move(ctx, tx, k.enough(ctx, k.Timeout/4), stmtGiveBack, []any{version, k.group, k.session.ID()}, owned)
		if err != nil {
			return err
		}
		more = len(rest) > 0
		if _, err := tx.Exec(ctx, stmtDecline, version, k.group, k.session.ID()); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, stmtUnserve, k.group, k.session.ID()); err != nil {
			return err
		}
		return journal.Append(ctx, tx, planned(k.group, "given back", k.session.ID(), version, given))
	})
	if err == nil {
		journal.Ring(ctx, k.DB)
	}
	if errors.Is(err, ErrNoGroup) {
		return false, nil
	}
	return more && err == nil, err
}

// giveBackAll gives back everything, as nothing runs any more. If the database does not answer it is
// told again: for a TTL while its caller waits, and then for as long as the session lives.
func (k *keeper) giveBackAll(ctx context.Context) {
	patience, cancel := context.WithTimeout(ctx, k.TTL)
	defer cancel()
	err := k.giveBack(patience)
	for err != nil && !hopeless(err) && k.session.Valid() && sleep(patience, nearPoll, nil) {
		err = k.giveBack(patience)
	}
	if err == nil || !k.served {
		k.leave()
		return
	}
	k.log.Warn("the database does not know yet that this member serves a group no more; it is told again", "group", k.group, "error", err)
	k.Go(func(life context.Context) {
		defer k.leave()
		for sleep(life, retryPause, nil) && k.giveBack(life) != nil {
		}
	})
}

// retryPause is the pause between two tries to give back what a member has.
const retryPause = time.Second
