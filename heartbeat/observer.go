package heartbeat

import "time"

// An observer watches the beats of others on this process's own clock and tells whose
// right has run out. It does no I/O: it is handed what was seen, and when.
type observer struct {
	seen           map[string]sighting // by member id
	sent, received time.Duration       // of the latest look
}

// pulse is one row of coordd_heartbeats as a look found it.
type pulse struct {
	id  string
	seq int64
	ttl time.Duration
}

// sighting is what is known of one member: it has not beaten since.
type sighting struct {
	pulse
	since time.Duration
}

// restart forgets everything, as after any failure of this process's own: only time in
// which it was itself healthy counts.
func (o *observer) restart() { clear(o.seen) }

// forget forgets one member.
func (o *observer) forget(id string) { delete(o.seen, id) }

// look takes in what a look at all living members found; stalled is the longest time for
// which no beat of this process's own was answered, as far as the previous look. It returns
// those whose window has closed.
//
// A sighting counts from the moment at which it was received, which is after the beat
// was committed. It starts anew if the member has beaten, and also if this process was
// blind (no look) or could not write (no beat) for half of that member's TTL.
func (o *observer) look(sent, received, stalled time.Duration, pulses []pulse) (overdue []pulse) {
	seen := make(map[string]sighting, len(pulses))
	idle := max(received-o.received, stalled)
	for _, p := range pulses {
		s, known := o.seen[p.id]
		if !known || s.seq != p.seq || idle > p.ttl/2 {
			s = sighting{pulse: p, since: received}
		}
		seen[p.id] = s
		if received-s.since >= window(p.ttl) {
			overdue = append(overdue, p)
		}
	}
	o.seen, o.sent, o.received = seen, sent, received
	return overdue
}

// next is when to look again: pace after the latest look was sent, so that slow answers do
// not make looks rare, or sooner if a window closes before.
func (o *observer) next(pace time.Duration) time.Duration {
	at := o.sent + pace
	for _, s := range o.seen {
		if closes := s.since + window(s.ttl); closes > o.received {
			at = min(at, closes)
		}
	}
	return at
}
