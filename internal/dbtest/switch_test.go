package dbtest

import "testing"

func TestASwitchLeadsToOneServerAtATime(t *testing.T) {
	t.Parallel()
	extra := Extra{password: "theirs"}
	one, other := StartMySQL(t, extra), StartMySQL(t, extra)
	gate := StartSwitch(t, one)
	db := Open(t, gate.DSN()).Pool()
	db.SetMaxOpenConns(1)
	port := func() string { return ask(t, db, `select @@port`) }
	first := port()

	conn, err := db.Conn(t.Context())
	must(t, err)
	defer conn.Close()
	gate.Point(other)
	if err := conn.PingContext(t.Context()); err == nil {
		t.Fatal("a connection outlived the turn of the switch")
	}
	conn.Close()
	Eventually(t, "the pool reaches the other server", func() bool { return db.Ping() == nil })
	if second := port(); second == first {
		t.Fatalf("got port %s, want that of the other server", second)
	}

	gate.Cut()
	if err := db.Ping(); err == nil {
		t.Fatal("the switch leads somewhere, though it was cut")
	}
	gate.Point(one)
	Eventually(t, "the pool reaches the first server", func() bool { return db.Ping() == nil })
	if got := port(); got != first {
		t.Fatalf("got port %s, want %s", got, first)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
