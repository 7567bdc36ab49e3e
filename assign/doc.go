// Package assign shares out jobs among the servers that live, so that each job is looked after by
// exactly one of them: monitors of streams, tenants, partitions, pollers, from a hundred to a
// million of them on 2 to 100 servers that come and go.
//
//	err := assign.Define(ctx, db, assign.Group{Name: "monitors"})
//	added, err := assign.Add(ctx, db, "monitors", assign.Spec{Key: "orders", Payload: "..."})
//
//	err = assign.Run(ctx, session, assign.Config{Group: "monitors"},
//		func(ctx context.Context, job assign.Job) error {
//			return monitor(ctx, job.Key, job.Payload) // ctx ends with the job's time here
//		})
//
// [Define] makes the group; one that is there keeps its jobs and its slots, and the strategy and
// the options that it had are replaced, by the defaults where nothing else is said.
//
// A job belongs to one of its group's slots for ever, by the hash of its key, and only slots have
// owners. So when a server comes or goes some hundred small rows are written, and none for each job.
//
// # What it promises
//
// A1: a slot has one owner in each epoch, and its epochs increase. A2: the next owner begins a job
// only after the function of the one before has returned, or that one's session has ended. A3: while
// the members stay the same, each job has an owner that lives within the settling time, and one of n
// that comes or goes moves at most 5 % more than it must.
//
// A1 and A3 hold while committed writes survive and reads go to the primary; A2 also needs local
// clock rates that differ by at most 1 %. A machine that is frozen in a way that none of its own clocks
// shows may go on with a job for a moment that is another's already: [Job.Guard] in its transaction
// keeps what it writes out.
//
// With no leader, and through an outage of the database, everybody keeps what it has. A session that
// was suspended stops its jobs, and goes on with what is still its own, in the same epochs, when it is
// connected again.
//
// # What it costs
//
// Nothing while nothing changes, but the session's beat, and two small reads a group when anything in
// the database's change log has. When membership changes: one statement for some hundred slots of those
// that lost their owner, two for those that move, and one read of the group's slots by its leader. The
// leader counts the jobs of each slot after some have changed, at most once a second and at most a
// twentieth of its time.
package assign
