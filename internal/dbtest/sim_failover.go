package dbtest

import (
	"context"
	"fmt"
	"strings"
)

// Script runs SQL on the server as nobody's statement: tables and triggers of a test's own. Call
// it before anything happens.
func (s *Sim) Script(script string) {
	if err := s.server.script(script); err != nil {
		panic(fmt.Sprintf("%v: %s", err, script)) // a mistake of the test
	}
}

// Snapshot is all that the server has, as of a moment between two transactions.
type Snapshot []byte

// serializer is SQLite's connection.
type serializer interface {
	Serialize() ([]byte, error)
	Deserialize(image []byte) error
}

// Snapshot waits for its turn and takes one.
func (s *Sim) Snapshot() Snapshot {
	_ = s.server.take(context.Background())
	defer s.server.yield()
	image, err := s.server.conn.(serializer).Serialize()
	if err != nil {
		panic(fmt.Sprintf("serialize: %v", err))
	}
	return image
}

// FailOver lets another server take over, between two transactions: it has what is in the
// snapshot and nothing that was committed since, and another {history}. Then is called before
// anything else happens there; it must not wait for anything.
func (s *Sim) FailOver(to Snapshot, then func(Query)) {
	_ = s.server.take(context.Background())
	defer s.server.yield()
	s.server.forget()
	if err := s.server.conn.(serializer).Deserialize(to); err != nil {
		panic(fmt.Sprintf("deserialize: %v", err))
	}
	s.server.failovers++
	s.Note("server", "failed over")
	then(s.server.read)
}

// inHistory puts a text of the server's own where SQLite's dialect has the same {history} for
// all.
func (s *simServer) inHistory(stmt string) string {
	if s.failovers == 0 {
		return stmt
	}
	return strings.ReplaceAll(stmt, `'sqlite'`, fmt.Sprintf(`'sqlite %d'`, s.failovers))
}
