package lock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"

	_ "modernc.org/sqlite"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/lock"
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

// join makes a process a member. What it holds hangs on its session.
func join(ctx context.Context, db *coordd.DB, name string) *heartbeat.Session {
	session, err := heartbeat.Join(ctx, db, heartbeat.Config{Name: name})
	if err != nil {
		log.Fatal(err)
	}
	return session
}

func ExampleAcquire() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	session := join(ctx, db, "app-7")
	defer session.Leave(ctx)

	// Waits its turn, for as long as ctx lasts. All of the locks, or none.
	held, err := lock.Acquire(ctx, session, lock.Exclusive("nightly-report"), lock.Semaphore("printers", 3))
	if err != nil {
		log.Fatal(err)
	}
	defer held.Release(ctx) // once the work has returned

	// Work that takes long ends with held.Context().
	fmt.Println(held.Valid(), held.Token())
	// Output: true 1
}

func ExampleDo() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	session := join(ctx, db, "app-7")
	defer session.Leave(ctx)

	for range 3 {
		err := lock.Do(ctx, session, lock.Exclusive("nightly-report"), func(ctx context.Context, held *lock.Held) error {
			fmt.Println("token", held.Token()) // ctx ends with the lock
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// token 1
	// token 2
	// token 3
}

func ExampleTry() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	first, second := join(ctx, db, "app-7"), join(ctx, db, "app-8")
	defer first.Leave(ctx)
	defer second.Leave(ctx)

	held, err := lock.Try(ctx, first, lock.Exclusive("nightly-report"))
	if err != nil {
		log.Fatal(err)
	}
	defer held.Release(ctx)

	_, err = lock.Try(ctx, second, lock.Exclusive("nightly-report"))
	if errors.Is(err, coordd.ErrHeld) {
		fmt.Println("somebody has it")
	}
	var who *lock.HeldError
	if errors.As(err, &who) {
		fmt.Println("it is the first:", who.Holder == first.ID(), "with token", who.Token)
	}
	// Output:
	// somebody has it
	// it is the first: true with token 1
}

// A guarded transaction is committed only while the lock is held.
func ExampleHeld_InTx() {
	ctx := context.Background()
	db := open(ctx)
	defer db.Pool().Close()
	session := join(ctx, db, "app-7")
	defer session.Leave(ctx)
	if _, err := db.Pool().ExecContext(ctx, `create table reports (day text)`); err != nil {
		log.Fatal(err)
	}

	held, err := lock.Acquire(ctx, session, lock.Exclusive("nightly-report"))
	if err != nil {
		log.Fatal(err)
	}
	write := func(day string) error {
		return held.InTx(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `insert into reports values (?)`, day)
			return err
		})
	}
	fmt.Println("held:", write("monday"))
	if err := held.Release(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("released:", errors.Is(write("tuesday"), lock.ErrReleased))

	var days int
	if err := db.Pool().QueryRowContext(ctx, `select count(*) from reports`).Scan(&days); err != nil {
		log.Fatal(err)
	}
	fmt.Println("reports:", days)
	// Output:
	// held: <nil>
	// released: true
	// reports: 1
}
