package assign

import (
	"cmp"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// kind is the slots with load, or those without, and what the members have of them.
type kind struct {
	placer  Placer
	band    band
	seed    uint64
	owners  []int // of all slots, as the plan will have it
	size    []float64
	slots   []int32 // those of this kind that are to have an owner
	orphans []int32 // of these, those that have none
	total   float64 // size of slots
	members []*Candidate
	at      []*Candidate // the same by their index in the view; nil: not eligible
	open    []*Candidate // what room returned, used again
}

// newKind makes candidates of those that are eligible, without anything yet.
func newKind(v View, weights []float64, placer Placer, b band, owners []int, size []float64, slots int) *kind {
	k := &kind{placer: placer, band: b, seed: xxhash.Sum64String(v.Group), owners: owners, size: size}
	k.slots = make([]int32, 0, slots)
	k.at = make([]*Candidate, len(v.Members))
	k.open = make([]*Candidate, 0, len(v.Members))
	all := make([]Candidate, len(v.Members))
	for i, m := range v.Members {
		if m.Eligible {
			m.Weight = weight(weights[i])
			all[i] = Candidate{Member: m, Hash: xxhash.Sum64String(m.Name), index: i}
			k.at[i] = &all[i]
			k.members = append(k.members, k.at[i])
		}
	}
	return k
}

// add takes a slot up, with its owner if it has one.
func (k *kind) add(slot int) {
	k.slots = append(k.slots, int32(slot))
	k.total += k.size[slot]
	if owner := k.owners[slot]; owner != nobody {
		k.at[owner].Size += k.size[slot]
	} else {
		k.orphans = append(k.orphans, int32(slot))
	}
}

// share sets the members' quotas.
func (k *kind) share() {
	var sum float64
	for _, m := range k.members {
		sum += m.Weight
	}
	for _, m := range k.members {
		m.Quota = k.total * m.Weight / sum
	}
}

// place gives the orphans to the members, the largest first, so that the small ones even
// out what is left.
func (k *kind) place() {
	if len(k.orphans) == 0 {
		return
	}
	slices.SortFunc(k.orphans, func(a, b int32) int {
		return cmp.Or(cmp.Compare(k.size[b], k.size[a]), cmp.Compare(a, b))
	})
	line := k.waterline()
	for _, slot := range k.orphans {
		k.give(slot, k.members, line)
	}
}

// waterline is the part of its share to which each member would be filled if the orphans were
// poured in like water. Whoever has more than that gets none of them.
func (k *kind) waterline() float64 {
	var volume, quota float64
	for _, slot := range k.orphans {
		volume += k.size[slot]
	}
	line := 0.0
	for i, m := range k.byFill() {
		if i > 0 && m.fill() >= line {
			break
		}
		volume += m.Size
		quota += m.Quota
		line = volume / quota
	}
	return line
}

// byFill are the members, those that have the least of their share first.
func (k *kind) byFill() []*Candidate {
	sorted := slices.Clone(k.members)
	slices.SortStableFunc(sorted, func(a, b *Candidate) int { return cmp.Compare(a.fill(), b.fill()) })
	return sorted
}

// give lets the placer choose who of some members is to have a slot.
func (k *kind) give(slot int32, among []*Candidate, line float64) {
	s := k.slot(slot)
	open := k.room(s, among, line)
	to := open[k.placer.Place(s, open)]
	to.Size += s.Size
	to.Placed++
	if from := k.owners[slot]; from != nobody {
		k.at[from].Size -= s.Size
	}
	k.owners[slot] = to.index
}

func (k *kind) slot(number int32) Slot {
	return Slot{Number: int(number), Size: k.size[number], Hash: mix(k.seed, uint64(number))}
}

// room are those of some members to whom a slot may go: who is below the line, and not lifted far
// above it by this slot; or else those whom it fills the least.
func (k *kind) room(s Slot, among []*Candidate, line float64) []*Candidate {
	open := k.open[:0]
	most, least := line*(1+slack), math.Inf(1)
	for _, m := range among {
		filled := m.Fill(s)
		if filled < most && m.fill() < line {
			open = append(open, m)
		}
		if filled < least {
			least = filled
		}
	}
	if len(open) > 0 {
		return open
	}
	const alike = 1 + 1e-9
	for _, m := range among {
		if m.Fill(s) <= least*alike {
			open = append(open, m)
		}
	}
	return open
}
