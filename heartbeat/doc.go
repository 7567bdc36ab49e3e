// Package heartbeat says which servers are alive.
//
// A process joins and so has a session: one row, renewed with each beat. A session is
// connected as long as its latest beat is younger than the TTL, counted from before
// that beat was sent, on the process's own clock. Past that moment it is suspended and
// nothing that hangs on it is valid. A beat that succeeds later connects it again, unless
// somebody has declared it dead meanwhile: then it is lost for good, and only a new
// session with a new id can join.
//
// Every member watches every other. It declares one dead that it has itself seen not to
// beat for that member's TTL and more, by one compare-and-set on the beat that it saw;
// so a session that is valid is never declared dead, whatever the clocks of servers and
// database say, and whatever statements of it arrive late. A member whose own beats or
// looks fail, or pause for long, declares nobody dead until it has itself been healthy
// for a whole TTL: an outage of the database kills nobody.
//
// What it relies on: committed writes survive, reads go to the primary, and local clock
// rates differ by at most 1 %. It does not see a machine that is frozen in a way that
// none of its own clocks shows.
//
// What it costs: two statements each beat, the beat itself and one look at all beats. With
// the default TTL of 6 s and a beat every 2 s that is one statement a second for each
// member, whatever it holds. A member with a shorter TTL makes all others beat and look
// as often as it does, as they could not tell in time that it is dead otherwise. A death
// costs each survivor a short transaction more, and a hundred survivors a hundred of them.
package heartbeat
