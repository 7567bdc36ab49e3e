package heartbeat

import (
	"encoding/json"
	"fmt"
)

// Load is how busy a member is. It rides on the beat. It never decides who is a member: a
// server that is too busy is slow, not dead.
type Load struct {
	CPU     float64            `json:"cpu"`             // 0 to 1, of what the process may use
	Memory  float64            `json:"memory"`          // 0 to 1, of what the process may use
	Average float64            `json:"average"`         // of runnable tasks over the last minute
	Extra   map[string]float64 `json:"extra,omitempty"` // whatever the application adds
}

// loads asks the application for its load before each beat, in a goroutine of its own, so
// that an application that does not answer holds up no beat. What cannot be told is told as
// none, and not as what it last was.
func (s *Session) loads() {
	for failing := false; wait(s.life, s.cfg.Beat, nil); {
		err := s.takeLoad()
		if err != nil {
			s.load.Store("")
		}
		if err != nil && !failing {
			s.log.Error("the load is not told until it can be", "error", err)
		}
		failing = err != nil
	}
}

func (s *Session) takeLoad() error {
	b, err := json.Marshal(s.cfg.Load())
	if err != nil {
		return fmt.Errorf("Config.Load returned what JSON cannot say: %w", err)
	}
	s.load.Store(string(b))
	return nil
}
