// Package events tells what has changed: members that joined, left or died, and whatever
// else coordd records, in the order in which the changes were committed.
//
// A watch gives each event after a revision once, in order, and leaves none out; from the
// revision of the last event that was dealt with it is resumed, in this process or another.
// Where it cannot do so it says so: with [ErrCompacted], as events are not kept for ever, or
// with [coordd.ErrHistoryLost].
//
// An outage ends no watch: it goes on where it was once the database answers again. What it
// relies on: committed writes survive and reads go to the primary. Where another server took
// over, or the database was restored into another, no revision from before can be resumed, as
// events may be missing; the same server restored from a backup is noticed by what a member
// or a watch has seen and is not there any more. The times of events are by the database's clock, for people; nothing depends on them.
//
// What it costs: a watch is one statement a second that reads one row, and more of them
// for some seconds after a change; events are read only when there are any, up to 500 by a
// statement. Where the DB has a Listener a change is seen at once, at the same cost.
package events
