package httpapi

import (
	"context"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/internal/journal"
)

// Status is a daemon, its sessions and its database.
type Status struct {
	Version  string    `json:"version" doc:"of the daemon"`
	Wanted   int       `json:"sessions_wanted" doc:"how many sessions it means to have"`
	Sessions []Session `json:"sessions" nullable:"false" doc:"those that it has"`
	Loops    []Loop    `json:"loops" nullable:"false" doc:"what it does again and again"`
	Database Database  `json:"database"`
}

// Session is a session of the daemon's process.
type Session struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Status       string `json:"status" enum:"connected,suspended,over"`
	Valid        bool   `json:"valid" doc:"it carries rights at this instant"`
	Draining     bool   `json:"draining"`
	RemainingMS  int64  `json:"remaining_ms" doc:"milliseconds until it is suspended if no beat succeeds"`
	Beats        int64  `json:"beats" doc:"that succeeded"`
	Failures     int64  `json:"beat_failures"`
	LookFailures int64  `json:"look_failures"`
	LatencyMS    int64  `json:"latency_ms" doc:"of the latest beat that succeeded"`
}

// Loop is something that the daemon does again and again.
type Loop struct {
	Name        string    `json:"name"`
	LastSuccess time.Time `json:"last_success" doc:"by this host's clock; the zero time: never"`
}

// Database is what a database says of itself and of its members.
type Database struct {
	Reachable   bool           `json:"reachable" doc:"it has answered just now; if not, nothing of it is known but the problem"`
	Product     string         `json:"product" doc:"as PostgreSQL"`
	Schema      int64          `json:"schema" doc:"the version of coordd's tables"`
	Revision    int64          `json:"revision" doc:"of the newest event"`
	Intact      bool           `json:"history_intact" doc:"it is still the one that everybody relies on"`
	Quarantined bool           `json:"history_quarantined" doc:"it has lost its history, and grants nothing until every old right has run out"`
	Members     map[string]int `json:"members" doc:"how many are in each state"`
	Problem     *Problem       `json:"problem,omitempty"`
}

// ReadDatabase asks a database for its status.
func ReadDatabase(ctx context.Context, db *coordd.DB) (d Database, err error) {
	if d.Product, err = db.Product(ctx); err != nil {
		return d, err
	}
	if d.Schema, err = db.Schema(ctx); err != nil {
		return d, err
	}
	if err := db.CheckSchema(ctx); err != nil {
		return d, err
	}
	history, err := journal.ReadHistory(ctx, db.Queries)
	if err != nil {
		return d, err
	}
	d.Revision, d.Intact, d.Quarantined = history.Revision, history.Intact(), history.Quarantined()
	members, err := heartbeat.Members(ctx, db)
	if err != nil {
		return d, err
	}
	d.Members = map[string]int{}
	for _, m := range members {
		d.Members[string(m.State)]++
	}
	d.Reachable = true
	return d, nil
}

type statusOutput struct{ Body Status }

// status answers with the database gone too: that is when it is asked.
func (a *api) status(ctx context.Context, _ *struct{}) (*statusOutput, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	s := Status{Version: a.Version, Wanted: a.Want, Sessions: []Session{}, Loops: []Loop{}}
	for _, session := range a.Sessions() {
		stats := session.Stats()
		s.Sessions = append(s.Sessions, Session{
			ID: session.ID(), Name: session.Name(), Status: string(session.Status()), Valid: session.Valid(), Draining: session.Draining(),
			RemainingMS: stats.Remaining.Milliseconds(), Beats: stats.Beats, Failures: stats.Failures,
			LookFailures: stats.LookFailures, LatencyMS: stats.Latency.Milliseconds(),
		})
	}
	if a.Loops != nil {
		s.Loops = append(s.Loops, a.Loops()...)
	}
	var err error
	if s.Database, err = ReadDatabase(ctx, a.DB); err != nil {
		s.Database.Problem = a.problem(ctx, err)
	}
	if s.Database.Members == nil {
		s.Database.Members = map[string]int{}
	}
	return &statusOutput{s}, nil
}
