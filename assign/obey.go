package assign

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
)

// checkReturns condemns this member if work does not return that was to end long ago, though nothing is to move:
// it was stopped by a lapse, so nobody is, or will be, told to look after its job.
func (k *keeper) checkReturns(ctx context.Context) error {
	late := func(h *holding) bool { return h.phase == stopping && !h.gone && time.Since(h.asked) > k.obey }
	if !k.some(late) {
		return nil
	}
	if err := k.find(ctx); err != nil || !k.some(late) { // it may have more time by now
		return err
	}
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	return k.condemn(ctx, k.session.ID(), "its work does not return")
}

// some says whether something is so of one of the slots here.
func (k *keeper) some(is func(*holding) bool) bool {
	for _, h := range k.slots {
		if is(h) {
			return true
		}
	}
	return false
}

// condemn has the beats of a member refused, so that its session ends.
func (k *keeper) condemn(ctx context.Context, id, why string) error {
	k.log.Error("a member is condemned", "group", k.group, "member", id, "reason", why)
	err := heartbeat.Forget(ctx, k.DB, id, heartbeat.By{Actor: "coordd", Reason: fmt.Sprintf("group %s: %s", k.group, why)})
	if err == nil || errors.Is(err, coordd.ErrNone) { // somebody was faster
		return nil
	}
	return fmt.Errorf("condemn member %s: %w", id, err)
}
