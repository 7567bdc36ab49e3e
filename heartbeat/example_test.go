package heartbeat_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	_ "modernc.org/sqlite"

	"github.com/coordd/coordd"
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

func ExampleJoin() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()

	session, err := heartbeat.Join(ctx, db, heartbeat.Config{Name: "app-7", Address: "10.0.0.7:8080"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("valid:", session.Valid()) // at this instant, by the clock alone

	members, err := heartbeat.Members(ctx, db)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range members {
		fmt.Println(m.Name, m.Address, m.State)
	}
	if err := session.Leave(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("valid:", session.Valid())
	// Output:
	// valid: true
	// app-7 10.0.0.7:8080 alive
	// valid: false
}

// A program that is a member for as long as it runs.
func ExampleRun() {
	ctx, stop := context.WithCancel(context.Background())
	db := open(ctx)
	defer db.Pool().Close()

	err := heartbeat.Run(ctx, db, heartbeat.Config{Name: "app-7"}, func(ctx context.Context, s *heartbeat.Session) error {
		fmt.Println("serving as", s.Name())
		stop()       // the program is to end: so does ctx, as it does with the session
		<-ctx.Done() // serve until then
		return nil
	})
	fmt.Println("left:", err)
	// Output:
	// serving as app-7
	// left: <nil>
}

// The living, at once and each time they change.
func ExampleWatch() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	for _, name := range []string{"app-7", "app-8"} {
		session, err := heartbeat.Join(ctx, db, heartbeat.Config{Name: name})
		if err != nil {
			log.Fatal(err)
		}
		defer session.Leave(ctx)
	}

	for living, err := range heartbeat.Watch(ctx, db) {
		if err != nil {
			log.Fatal(err) // or go on: it goes on too
		}
		for _, m := range living {
			fmt.Println(m.Name, m.State)
		}
		break
	}
	// Output:
	// app-7 alive
	// app-8 alive
}
