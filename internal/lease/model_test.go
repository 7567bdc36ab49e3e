package lease

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// The model of one lease that is held alone, against which histories are checked: what its
// holders, those who wanted it and those who guarded transactions by it were told must have an
// order in which a single, perfect lease would have told them that.

// op is something that was asked of a lease, and what the answer was.
type op struct {
	From  int64  `json:"from"`         // microseconds since the beginning
	To    int64  `json:"to"`           // 0: whenever after, or never
	Do    string `json:"do"`           // one of the below
	By    string `json:"by,omitempty"` // the member
	ID    string `json:"id,omitempty"` // of the grant that it is about
	Token int64  `json:"token,omitempty"`
	Else  string `json:"else,omitempty"`  // what came of it, if not what was asked for
	Times int    `json:"times,omitempty"` // how many grants were sent of which nothing is known; 0: one

	tx   string // of a commit: what it has written
	open bool   // that was not answered
}

const (
	take    = "take"    // with the token that was given; or else unknown
	refused = "refused" // to By, as ID's holder, Else, held it with the token
	valid   = "valid"   // the holder was told by its clock that it still holds it
	commit  = "commit"  // of a guarded transaction; or else fenced
	release = "release"
	end     = "end" // By died, or left: from then on whatever it holds is free

	unknown = "unknown"
	fenced  = "fenced"
)

// held is how a lease stands.
type held struct {
	token  int64
	id, by string
	ended  string // members, each with a space after it
}

func (h held) dead(member string) bool { return strings.Contains(h.ended, member+" ") }
func (h held) free() bool              { return h.id == "" || h.dead(h.by) }

// step is what a lease may be after something, if that may be.
func step(h held, o op) []any {
	freed := held{token: h.token, ended: h.ended}
	given := held{token: cmp.Or(o.Token, h.token), id: o.ID, by: o.By, ended: h.ended}
	mine := h.id == o.ID
	may := false
	switch {
	case o.Do == take && o.Else == unknown && !h.free():
		may = true
	case o.Do == take && o.Else == unknown:
		all := []any{h} // not done, and not made impossible either
		for range max(1, o.Times) {
			given.token++
			freed.token++
			all = append(all, given, freed) // the last one was done, or they were all made impossible
		}
		return all
	case o.Do == take && h.free() && o.Token > h.token:
		return []any{given}
	case o.Do == refused:
		may = h.by == o.Else && h.token == o.Token && !h.free()
	case o.Do == valid:
		may = mine
	case o.Do == commit && o.Else == fenced:
		may = !mine || h.dead(h.by)
	case o.Do == commit:
		may = mine
	case o.Do == release && mine:
		return []any{freed}
	case o.Do == release:
		may = true
	case o.Do == end && !h.dead(o.By):
		all := append(strings.Fields(h.ended), o.By)
		slices.Sort(all)
		h.ended = strings.Join(all, " ") + " "
		may = true
	case o.Do == end:
		may = true
	}
	if may {
		return []any{h}
	}
	return nil
}

var model = porcupine.NondeterministicModel{
	Init: func() []any { return []any{held{}} },
	Step: func(state, input, _ any) []any { return step(state.(held), input.(op)) },
}

// check says whether a history is one of a lease, or that it could not be found out.
func check(history []op, within time.Duration) porcupine.CheckResult {
	var all []porcupine.Operation
	for _, o := range history {
		to := o.To
		if to == 0 {
			to = math.MaxInt64
		}
		all = append(all, porcupine.Operation{Input: o, Call: o.From, Return: to})
	}
	return porcupine.CheckOperationsTimeout(model.ToModel(), all, within)
}

// recording is a history in a file: what it shows and whether it is one of a lease stand in the
// first line, and each op in one of its own.
type recording struct {
	What  string `json:"what"`
	Legal bool   `json:"legal"`
	ops   []op
}

func (r recording) save(path string) error {
	var b strings.Builder
	for _, line := range append([]any{r}, anys(r.ops)...) {
		text, err := json.Marshal(line)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s\n", text)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func anys(ops []op) (all []any) {
	for _, o := range ops {
		all = append(all, o)
	}
	return all
}

func load(path string) (r recording, err error) {
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var o op
		if r.What == "" {
			err = json.Unmarshal(lines.Bytes(), &r)
		} else if err = json.Unmarshal(lines.Bytes(), &o); err == nil {
			r.ops = append(r.ops, o)
		}
		if err != nil {
			return r, fmt.Errorf("%s: %q: %w", path, lines.Text(), err)
		}
	}
	return r, nil
}

// histories is where recordings are.
const histories = "testdata/histories"

// Histories that no lease may have are rejected, for ever; so are those that a test has once
// found in the real thing. Others are accepted, however much in them was never answered.
func TestTheModelTellsHistoriesApart(t *testing.T) {
	files, err := filepath.Glob(histories + "/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d recordings, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			r, err := load(path)
			if err != nil {
				t.Fatal(err)
			}
			want := porcupine.Illegal
			if r.Legal {
				want = porcupine.Ok
			}
			if got := check(r.ops, time.Minute); got != want {
				t.Errorf("%s: got %s, want %s", r.What, got, want)
			}
		})
	}
}
