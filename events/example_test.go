package events_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	_ "modernc.org/sqlite"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/events"
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

// Each change once, in order and without gaps, from a revision on.
func ExampleWatch() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	session, err := heartbeat.Join(ctx, db, heartbeat.Config{Name: "app-7"})
	if err != nil {
		log.Fatal(err)
	}
	if err := session.Leave(ctx); err != nil {
		log.Fatal(err)
	}

	var last int64 // what is kept, to be resumed from
	for event, err := range events.Watch(ctx, db, last, "member") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Revision, event.Subject, event.Action)
		if last = event.Revision; last == 2 {
			break // or wait for more
		}
	}
	// Output:
	// 1 app-7 joined
	// 2 app-7 left
}
