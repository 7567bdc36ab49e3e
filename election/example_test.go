package election_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"

	_ "modernc.org/sqlite"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/election"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/migrations"
)

// open opens a database in memory, with coordd's tables in it. Your program opens its own, and
// hands it to coordd.Postgres, coordd.MySQL or coordd.SQLite.
func open(ctx context.Context) *coordd.DB {
	pool, err := sql.Open("sqlite", "file::memory:?_txlock=immediate")
	if err != nil {
		log.Fatal(err)
	}
	pool.SetMaxOpenConns(1)
	db := coordd.SQLite(pool)
	if err := migrations.Up(ctx, db); err != nil {
		log.Fatal(err)
	}
	return db
}

// join makes this process a member. What it holds hangs on its session.
func join(ctx context.Context, db *coordd.DB) *heartbeat.Session {
	session, err := heartbeat.Join(ctx, db, heartbeat.Config{Name: "app-7"})
	if err != nil {
		log.Fatal(err)
	}
	return session
}

// What is to run on one server at a time runs in the function that Run is given.
func ExampleRun() {
	ctx, stop := context.WithCancel(context.Background())
	db := open(ctx)
	defer db.Pool().Close()
	session := join(ctx, db)
	defer session.Leave(ctx)

	err := election.Run(ctx, session, election.Config{Name: "scheduler"}, func(ctx context.Context, l *election.Leadership) error {
		fmt.Println("leads in term", l.Term())
		stop()       // the program is to end: so does ctx, as it does with the leadership
		<-ctx.Done() // schedule until then
		return nil
	})
	fmt.Println("leads no more:", err)
	// Output:
	// leads in term 1
	// leads no more: <nil>
}

func ExampleCampaign() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	session := join(ctx, db)
	defer session.Leave(ctx)

	for range 2 {
		l, err := election.Campaign(ctx, session, election.Config{Name: "scheduler"}) // waits
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("term", l.Term(), l.Valid())
		if err := l.Resign(ctx); err != nil { // once the work has returned
			log.Fatal(err)
		}
	}
	// Output:
	// term 1 true
	// term 2 true
}

// Anybody may ask who leads. It needs no session.
func ExampleCurrent() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	_, err := election.Current(ctx, db, "scheduler")
	fmt.Println("nobody leads:", errors.Is(err, coordd.ErrNone))

	session := join(ctx, db)
	defer session.Leave(ctx)
	l, err := election.Campaign(ctx, session, election.Config{Name: "scheduler", Value: "http://10.0.0.7:8080"})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Resign(ctx)

	leader, err := election.Current(ctx, db, "scheduler")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(leader.Name, leader.Value, leader.Term)
	// Output:
	// nobody leads: true
	// app-7 http://10.0.0.7:8080 1
}

// A guarded transaction is committed only if nobody else has been elected before its commit.
func ExampleLeadership_InTx() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	session := join(ctx, db)
	defer session.Leave(ctx)
	if _, err := db.Pool().ExecContext(ctx, `create table jobs (id integer, state text)`); err != nil {
		log.Fatal(err)
	}
	l, err := election.Campaign(ctx, session, election.Config{Name: "scheduler"})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Resign(ctx)

	err = l.InTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `insert into jobs values (42, 'ready')`)
		return err
	})
	switch {
	case errors.Is(err, coordd.ErrFenced), errors.Is(err, coordd.ErrLost):
		fmt.Println("another leads, or may: nothing was written")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println("written")
	}
	// Output: written
}
