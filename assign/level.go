package assign

import (
	"cmp"
	"math"
	"slices"
)

// band is how far from its share a member may be without a slot moving for it.
type band struct{ over, under float64 }

var (
	loadBand  = band{over: 0.02, under: 0.05}
	spareBand = band{over: 0.10, under: 0.10}
)

const (
	// budget is the part of the load that one plan moves to even out what has drifted.
	// That can wait, and a wrong count of the load should do little.
	budget = 0.05

	// newcomer is the part of its share below which a member is taken for one that has just
	// come, or has been given another weight. It is filled up at once.
	newcomer = 0.5

	// slack is how far above the line a placer may fill a member: the freedom that it has.
	slack = 0.01

	// gain is the part of a share by which a slot that moves must bring two members closer
	// together at the least, so that none is taken back while the loads stay as they are.
	gain = 0.005
)

// level moves slots from members that have too much to those that have too little, where
// somebody is outside of the band. While a server restarts, shares are not what they will be in
// a moment, and only newcomers are given anything.
func (k *kind) level(restarting bool) {
	l := leveling{kind: k, allowed: budget * k.total}
	if restarting {
		l.fillUp(newcomer)
		return
	}
	l.fillUp(1 - k.band.under)
	l.relieve()
}

// leveling is one call of level.
type leveling struct {
	*kind
	allowed float64   // how much may still move
	held    [][]int32 // slots by the index of their owner, as it was when the first was to move
	closer  []*Candidate
}

// fillUp brings those up to their share that have less than a part of it. Those that have the
// most give.
func (l *leveling) fillUp(part float64) {
	takers := l.which(func(fill float64) bool { return fill < part })
	var need, fresh float64
	for _, m := range takers {
		need += m.Quota - m.Size
		if m.fill() < newcomer {
			fresh += m.Quota - m.Size
		}
	}
	l.allowed = max(l.allowed, fresh)
	if len(takers) > 0 {
		l.shift(l.which(func(fill float64) bool { return fill > 1 }), takers, need, 1)
	}
}

// relieve brings those down to their share that have too much.
func (l *leveling) relieve() {
	most := 1 + l.band.over
	donors := l.which(func(fill float64) bool { return fill > most })
	var need float64
	for _, m := range donors {
		need += m.Size - m.Quota
	}
	if len(donors) > 0 {
		l.shift(donors, l.which(func(fill float64) bool { return fill < 1 }), need, most)
	}
}

// which are the members that have such a part of their share, those that have most of it first.
func (l *leveling) which(such func(fill float64) bool) []*Candidate {
	var those []*Candidate
	for _, m := range l.members {
		if such(m.fill()) {
			those = append(those, m)
		}
	}
	return fullestFirst(those)
}

func fullestFirst(members []*Candidate) []*Candidate {
	slices.SortStableFunc(members, func(a, b *Candidate) int { return cmp.Compare(b.fill(), a.fill()) })
	return members
}

// shift moves as much as is needed from some members to others: first what each of the donors
// has above a line that is the same for all of them; then, as slots do not add up to just
// that, a slot more from each that still has more than most of its share.
func (l *leveling) shift(donors, takers []*Candidate, need, most float64) {
	if len(donors) == 0 || len(takers) == 0 {
		return
	}
	line := drainline(donors, need)
	for _, d := range donors {
		for _, slot := range l.upTo(d, min(need, d.Size-line*d.Quota)) {
			if l.size[slot] <= min(need, d.Size-line*d.Quota) && l.move(slot, d, takers) {
				need -= l.size[slot]
			}
		}
	}
	for _, d := range fullestFirst(donors) {
		if slot, ok := l.oneMore(d, takers, need); ok && d.fill() > most && l.move(slot, d, takers) {
			need -= l.size[slot]
		}
	}
}

// drainline is the part of its share down to which each of the donors gives what it has above
// it: not below its share.
func drainline(donors []*Candidate, need float64) float64 {
	size, quota, line := -need, 0.0, 0.0
	for i, d := range donors {
		if i > 0 && d.fill() <= line {
			break
		}
		size += d.Size
		quota += d.Quota
		line = size / quota
	}
	return max(line, 1)
}

// move gives a slot to one of the takers, if there are any that it brings closer to its owner.
func (l *leveling) move(slot int32, from *Candidate, takers []*Candidate) bool {
	if l.allowed <= 0 {
		return false
	}
	l.closer = l.closer[:0]
	for _, t := range takers {
		if t.fill() < 1 && l.size[slot] < within(from, t) {
			l.closer = append(l.closer, t)
		}
	}
	if len(l.closer) == 0 {
		return false
	}
	l.give(slot, l.closer, 1)
	l.allowed -= l.size[slot]
	return true
}

// within is the size that a slot must be below for its move to bring two members closer
// together: the one that takes it stays emptier than the other was, and the one that gives
// it fuller than the other was.
func within(from, to *Candidate) float64 {
	return min((from.fill()-gain)*to.Quota-to.Size, from.Size-(to.fill()+gain)*from.Quota)
}

// oneMore is the slot of a donor's that is closest to an average one, among those that are not
// far beyond what is needed and that may move to one of the takers.
func (l *leveling) oneMore(d *Candidate, takers []*Candidate, need float64) (slot int32, ok bool) {
	var most float64
	for _, t := range takers {
		most = max(most, min(within(d, t), (1+l.band.over)*t.Quota-t.Size))
	}
	most = min(most, 2*need)
	average := l.total / float64(len(l.slots))
	off := math.Inf(1)
	for _, s := range l.holds(d) {
		if size := l.size[s]; size < most && l.owners[s] == d.index && math.Abs(size-average) < off {
			slot, off, ok = s, math.Abs(size-average), true
		}
	}
	return slot, ok
}

// upTo are the slots of a member up to a size, those first that are more than a crumb of its
// share: whoever is filled by a big one should not have been filled with crumbs before, as it
// would have to pass them on.
func (l *leveling) upTo(m *Candidate, size float64) []int32 {
	var slots []int32
	for _, slot := range l.holds(m) {
		if l.size[slot] <= size && l.owners[slot] == m.index {
			slots = append(slots, slot)
		}
	}
	crumb := slack * m.Quota
	slices.SortStableFunc(slots, func(a, b int32) int { return cmp.Compare(max(l.size[b], crumb), max(l.size[a], crumb)) })
	return slots
}

// holds are the slots that a member had when levelling began.
func (l *leveling) holds(m *Candidate) []int32 {
	if l.held == nil {
		l.held = l.byOwner()
	}
	return l.held[m.index]
}

// byOwner are the slots by the index of their owner. Where they begin depends on the members, so that
// it is not the same ones that move whoever comes.
func (k *kind) byOwner() [][]int32 {
	count := make([]int, len(k.at))
	for _, slot := range k.slots {
		count[k.owners[slot]]++
	}
	all := make([]int32, len(k.slots))
	held := make([][]int32, len(k.at))
	for i, n := range count {
		held[i], all = all[:0:n], all[n:]
	}
	var hash uint64
	for _, m := range k.members {
		hash ^= m.Hash
	}
	begin := int(hash % uint64(len(k.slots)))
	for _, part := range [][]int32{k.slots[begin:], k.slots[:begin]} {
		for _, slot := range part {
			held[k.owners[slot]] = append(held[k.owners[slot]], slot)
		}
	}
	return held
}
