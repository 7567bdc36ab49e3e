package assign_test

import (
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/coordd/coordd/assign"
)

// These were reckoned by an implementation of its own after the specification of xxHash. They
// stand in docs/assignment.md too, and must never change.
var vectors = []struct {
	key                     string
	hash                    uint64
	of4096, of1000, of65536 int
}{
	{"", 0xef46db3751d8e999, 2457, 921, 59801},
	{"a", 0xd24ec4f1a98c6e5b, 3675, 955, 28251},
	{"abc", 0x44bc2cf5ad770999, 2457, 249, 2457},
	{"job-1", 0x5f757ec0b8746f3f, 3903, 679, 28479},
	{"job-2", 0x1d8d6b591c4ee7a4, 1956, 172, 59300},
	{"customer-42", 0xca6e96e956958c0f, 3087, 895, 35855},
	{"tenant/7/report", 0x7dcfa6dd979d922e, 558, 214, 37422},
	{"Zürich", 0x85f1debcbb1a8279, 633, 233, 33401},
	{"名前", 0x75cd52f79f1203b7, 951, 679, 951},
	{"A", 0x13099d40d095b684, 1668, 980, 46724},
	{"a ", 0xec737714407b33cd, 973, 613, 13261},
	{strings.Repeat("x", 31), 0x60dd0d01083b99f0, 2544, 976, 39408},
	{strings.Repeat("x", 32), 0xe2df261fc2ec30eb, 235, 411, 12523},
	{strings.Repeat("x", 100), 0x92f0de5a88a3c094, 148, 52, 49300},
}

func TestKeysFallIntoTheSlotsThatAreStored(t *testing.T) {
	for _, v := range vectors {
		if got := xxhash.Sum64String(v.key); got != v.hash {
			t.Errorf("hash of %q: got %016x, want %016x", v.key, got, v.hash)
		}
		for slots, want := range map[int]int{4096: v.of4096, 1000: v.of1000, 65536: v.of65536, 1: 0, 0: 0, -1: 0} {
			if got := assign.SlotOf(v.key, slots); got != want {
				t.Errorf("slot of %q among %d: got %d, want %d", v.key, slots, got, want)
			}
		}
	}
}
