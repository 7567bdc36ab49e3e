package assign

import "github.com/cespare/xxhash/v2"

// SlotOf is the slot that a job's key falls into: xxHash64 of the key's bytes with seed 0, as an
// unsigned number, modulo the number of slots. This is a stored contract: it never changes, as
// rows bear what it gave. A group has at least one slot; fewer count as one.
//
// Elsewhere the same is
//
//	xxhash.xxh64_intdigest(key) % slots                             # Python, package xxhash
//	Long.remainderUnsigned(LongHashFunction.xx().hashBytes(b), n)   // Java, zero-allocation-hashing
//
// and in SQL nobody needs it: each job's row bears its slot.
func SlotOf(key string, slots int) int {
	if slots <= 1 {
		return 0
	}
	h, n := xxhash.Sum64String(key), uint64(slots)
	if n&(n-1) == 0 {
		return int(h & (n - 1)) // the same, and faster
	}
	return int(h % n)
}

// mix spreads what two numbers say over all bits: the finalizer of SplitMix64 (Steele, Lea and
// Flood 2014).
func mix(a, b uint64) uint64 {
	z := a ^ (b + 0x9e3779b97f4a7c15)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
