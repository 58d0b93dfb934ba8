package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
)

// File is the file in a data folder that marks it as the demo's, and holds its script.
const File = "demo.json"

// Script determines the log of the simulated tenant, so that the demo continues with the same log after
// a restart.
type Script struct {
	Seed   uint64      `json:"seed"`
	Anchor time.Time   `json:"anchor"`
	Events int         `json:"events"`
	Rate   float64     `json:"rate"`
	Starts []time.Time `json:"starts"` // of each run; attacks start again with each
}

// ErrOtherData reports that a folder contains the data of a real tenant.
var ErrOtherData = errors.New("the folder contains the data of another tenant")

// Continue reads the script of a data folder and adds this start. A folder without one gets a script with the
// given number of events in the history and live events a second. Save the script once the folder is ours.
func Continue(dir string, events int, rate float64) (*Script, error) {
	file := filepath.Join(dir, File)
	now := time.Now().UTC().Truncate(time.Millisecond)
	s := &Script{Seed: rand.Uint64N(1 << 53), Anchor: now, Events: events, Rate: rate}

	data, err := os.ReadFile(file)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, s); err != nil {
			return nil, fmt.Errorf("read the demo's script %s: %w: remove %s to start over", file, err, dir)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read the demo's script: %w", err)
	default:
		// There is no script. A folder with data then belongs to a real tenant.
		for _, part := range []string{engines.KafkaDir, engines.ClickHouseDir} {
			if _, err := os.Stat(filepath.Join(dir, part)); err == nil {
				return nil, ErrOtherData
			}
		}
	}

	first := len(s.Starts) == 0
	s.Starts = append(s.Starts, now)
	// Save a new script before anything else, so that the folder is known to be the demo's.
	if first {
		if err := s.Save(dir); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Save writes the script.
func (s *Script) Save(dir string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}

	// If we stop before the rename, the old script is kept.
	file := filepath.Join(dir, File)
	if err = os.WriteFile(file+".new", append(data, '\n'), 0o600); err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return fmt.Errorf("write the demo's script: %w", err)
	}
	return nil
}

// attackPeriod is how long attacks and outages recur after a start.
const attackPeriod = 24 * time.Hour

// Tenant returns the simulated tenant of the script. The attacks of a start end where those of the next one
// start; the log before that does not change.
func (s *Script) Tenant() auth0sim.Config {
	cfg := auth0sim.Config{Name: "demo", Seed: s.Seed, Anchor: s.Anchor, HistoryEvents: s.Events, LiveRate: s.Rate}
	for i, start := range s.Starts {
		from := start.Sub(s.Anchor)
		until := from + attackPeriod
		// The next start ends it earlier.
		if i+1 < len(s.Starts) {
			until = min(until, s.Starts[i+1].Sub(s.Anchor))
		}

		for _, attack := range auth0sim.DemoAttacks() {
			attack.At += from
			attack.Times = timesUntil(attack.At, attack.Every, until)
			cfg.Attacks = append(cfg.Attacks, attack)
		}
		for _, outage := range auth0sim.DemoOutages() {
			outage.From, outage.To = outage.From+from, outage.To+from
			if outage.From < until {
				cfg.ProbeOutages = append(cfg.ProbeOutages, outage)
			}
		}
	}
	return cfg
}

// timesUntil returns how often something starts before until that first starts at from and recurs at an
// interval; -1 for never.
func timesUntil(from, every, until time.Duration) int {
	if from >= until {
		return -1
	}
	return int((until-from-1)/every) + 1
}
