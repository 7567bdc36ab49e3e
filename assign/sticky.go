package assign

// Sticky is the planner that keeps every slot with its owner unless it must move, and asks p
// where those go that must; nil means [ConsistentHash]. The package's comment says what must.
func Sticky(p Placer) Planner {
	if p == nil {
		p = ConsistentHash{}
	}
	return sticky{p}
}

type sticky struct{ placer Placer }

// Plan implements Planner.
func (s sticky) Plan(v View) []int {
	p := newPlan(v, s.placer)
	for _, k := range []*kind{p.loaded, p.spare} {
		if len(k.members) > 0 && len(k.slots) > 0 {
			k.share()
			k.place()
			k.level(p.restarting)
		}
	}
	return p.owners
}

// plan is one in the making. Slots with load and those without are planned alike, and apart:
// together, the empty slots of a group with few jobs would either outweigh the others or be
// nobody's concern.
type plan struct {
	owners        []int
	loaded, spare *kind
	restarting    bool // a slot is reserved for a name that is not back
}

func newPlan(v View, placer Placer) *plan {
	p := &plan{owners: make([]int, len(v.Owners))}
	size, loaded := sizes(v)
	weights := weigh(v, placer)
	p.loaded = newKind(v, weights, placer, loadBand, p.owners, size, loaded)
	p.spare = newKind(v, weights, placer, spareBand, p.owners, size, len(size)-loaded)
	back := back(v)
	for slot := range p.owners {
		owner := v.kept(slot, back)
		if owner == waiting {
			p.owners[slot], p.restarting = nobody, true
			continue
		}
		p.owners[slot] = owner
		if v.load(slot) > 0 {
			p.loaded.add(slot)
		} else {
			p.spare.add(slot)
		}
	}
	return p
}

// sizes are the slots' loads, or 1 of those that have none, and how many have any.
func sizes(v View) (size []float64, loaded int) {
	size = make([]float64, len(v.Owners))
	for slot := range size {
		if size[slot] = v.load(slot); size[slot] > 0 {
			loaded++
		} else {
			size[slot] = 1
		}
	}
	return size, loaded
}

// weigh returns the members' weights: as the placer says, if it says.
func weigh(v View, placer Placer) []float64 {
	if w, ok := placer.(Weigher); ok {
		return w.Weights(v)
	}
	weights := make([]float64, len(v.Members))
	for i, m := range v.Members {
		weights[i] = m.Weight
	}
	return weights
}

const (
	nobody  = -1
	waiting = -2 // nobody, and it is not to be placed
)

// kept is the owner that a slot has, or is reserved for and who is back.
func (v *View) kept(slot int, back map[string]int) int {
	if owner := v.Owners[slot]; owner >= 0 && owner < len(v.Members) && v.Members[owner].Eligible {
		return owner
	}
	if slot >= len(v.Reserved) || v.Reserved[slot] == "" {
		return nobody
	}
	if owner, ok := back[v.Reserved[slot]]; ok {
		return owner
	}
	return waiting
}

// back are those for whose names slots may be kept: of several of one name, the newest.
func back(v View) map[string]int {
	if len(v.Reserved) == 0 {
		return nil
	}
	names := make(map[string]int, len(v.Members))
	for i, m := range v.Members {
		if m.Eligible {
			names[m.Name] = i
		}
	}
	return names
}
