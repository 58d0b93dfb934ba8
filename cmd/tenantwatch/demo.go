package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/scanner/alert"
	"github.com/tenantwatch/tenantwatch/schema"
)

// demoFile marks a data folder as the demo's and holds its script.
const demoFile = "demo.json"

type demoCmd struct {
	Events int     `default:"200000" help:"Events in the simulated history."`
	Rate   float64 `default:"25" help:"Live events per second."`
}

// demoScript is what the simulated tenant's log follows from, so that the demo
// goes on, over restarts, with the same log.
type demoScript struct {
	Seed   uint64      `json:"seed"`
	Anchor time.Time   `json:"anchor"`
	Events int         `json:"events"`
	Rate   float64     `json:"rate"`
	Starts []time.Time `json:"starts"` // of each run; attacks begin anew with each
}

// Run watches a simulated tenant until ctx ends.
func (d *demoCmd) Run(ctx context.Context, a *app) error {
	// The settings of a real tenant have no say here.
	environ := slices.DeleteFunc(slices.Clone(a.environ), func(line string) bool {
		for _, prefix := range []string{"AUTH0_", "PROBE_", "TENANTWATCH_TENANT=", "TENANTWATCH_BACKFILL=", "TENANTWATCH_RATE_SHARE="} {
			if strings.HasPrefix(line, prefix) {
				return true
			}
		}
		return false
	})
	if !slices.ContainsFunc(environ, func(line string) bool { return strings.HasPrefix(line, "HTTP_ADDR=") }) {
		environ = append(environ, "HTTP_ADDR=127.0.0.1:0")
	}
	c, err := loadConfig(environ, need{})
	if err != nil {
		return err
	}
	script, err := d.script(c.DataDir)
	if err != nil {
		return err
	}
	s, err := startSim("127.0.0.1:0", script.tenant())
	if err != nil {
		return err
	}
	defer s.close()
	environ = append(environ, s.environ()...)
	environ = append(environ, "PROBE_INTERVAL=3s", "TENANTWATCH_RATE_SHARE=1")
	if c, err = loadConfig(environ, need{tenant: true}); err != nil {
		return err
	}

	out := newConsole(a.stdout)
	if len(script.Starts) == 1 {
		out.printf("demo: a simulated tenant with %s events of the last 24 hours, then %.0f a second, attacks and an outage", thousands(uint64(script.Events)), script.Rate)
	} else {
		out.printf("demo: run %d of the tenant in %s; remove that folder to begin anew", len(script.Starts), c.DataDir)
	}
	out.printf("tenant:     %s", s.url)
	seen := newSeenFamilies()
	p, err := startPipeline(ctx, c, allRoles, out, newLogger(a.logOutput(out), c), []alert.Sink{seen})
	if err != nil {
		return err
	}
	// The folder is ours alone now. A start that came to nothing must not be in
	// the script: it would change what the running demo tells.
	if err := script.save(c.DataDir); err != nil {
		p.close()
		return err
	}
	p.printAddresses(out)
	show, stop := context.WithCancel(ctx)
	var lines sync.WaitGroup
	lines.Go(func() { p.showLive(show, seen, c) })
	err = p.run(ctx)
	stop()
	lines.Wait()
	if err == nil {
		out.printf("stopped; make demo goes on from here")
	}
	return err
}

// script reads the folder's script, or writes a new one, and adds this start.
func (d *demoCmd) script(dir string) (*demoScript, error) {
	file := filepath.Join(dir, demoFile)
	now := time.Now().UTC().Truncate(time.Millisecond)
	s := &demoScript{Seed: rand.Uint64N(1 << 53), Anchor: now, Events: d.Events, Rate: d.Rate}
	data, err := os.ReadFile(file)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, s); err != nil {
			return nil, fmt.Errorf("read the demo's script %s: %w: remove %s to begin anew", file, err, dir)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read the demo's script: %w", err)
	default:
		for _, part := range []string{kafkaDir, clickhouseDir} {
			if _, err := os.Stat(filepath.Join(dir, part)); err == nil {
				return nil, usageError(fmt.Sprintf("%s has the data of another tenant: set TENANTWATCH_DATA_DIR to another folder for the demo", dir))
			}
		}
	}
	fresh := len(s.Starts) == 0
	s.Starts = append(s.Starts, now)
	if fresh { // before anything else, so that the folder is known for the demo's
		if err := s.save(dir); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// save writes the script.
func (s *demoScript) save(dir string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	file := filepath.Join(dir, demoFile)
	if err = os.WriteFile(file+".new", append(data, '\n'), 0o600); err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return fmt.Errorf("write the demo's script: %w", err)
	}
	return nil
}

// attacksFor is how long attacks and outages go on after a start.
const attacksFor = 24 * time.Hour

// tenant is the simulated tenant of the script. Attacks of an earlier start end
// where the next one begins; what was in the log before stays as it was.
func (s *demoScript) tenant() auth0sim.Config {
	cfg := auth0sim.Config{Name: "demo", Seed: s.Seed, Anchor: s.Anchor, HistoryEvents: s.Events, LiveRate: s.Rate}
	for i, start := range s.Starts {
		from, until := start.Sub(s.Anchor), start.Sub(s.Anchor)+attacksFor
		if i+1 < len(s.Starts) {
			until = min(until, s.Starts[i+1].Sub(s.Anchor))
		}
		for _, a := range auth0sim.DemoAttacks() {
			a.At += from
			a.Times = timesUntil(a.At, a.Every, until)
			cfg.Attacks = append(cfg.Attacks, a)
		}
		for _, o := range auth0sim.DemoOutages() {
			o.From, o.To = o.From+from, o.To+from
			if o.From < until {
				cfg.ProbeOutages = append(cfg.ProbeOutages, o)
			}
		}
	}
	return cfg
}

// timesUntil is how often something that begins at from and comes back every so
// often begins before until; -1 for never.
func timesUntil(from, every, until time.Duration) int {
	if from >= until {
		return -1
	}
	return int((until-from-1)/every) + 1
}

// seenFamilies notes which parts of the watch have alerted, and whether the
// probe has recovered.
type seenFamilies struct {
	mu   sync.Mutex // guards open
	open map[string]bool
	all  chan struct{} // closed when every one was seen
}

const recovered = "probe recovered"

func newSeenFamilies() *seenFamilies {
	return &seenFamilies{all: make(chan struct{}), open: map[string]bool{
		"rate limit": true, "authentication": true, "management api": true, "probe": true, recovered: true}}
}

// Notify notes an alert.
func (s *seenFamilies) Notify(_ context.Context, a *schema.Alert) error {
	family := alert.Family(a)
	if a.State == schema.Resolved {
		if family != "probe" {
			return nil
		}
		family = recovered
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[family] {
		delete(s.open, family)
		if len(s.open) == 0 {
			close(s.all)
		}
	}
	return nil
}

// liveEvery is how often the demo tells its pace.
const liveEvery = 5 * time.Second

// showLive tells the pace, and once every part has alerted, how to list alerts.
func (p *pipeline) showLive(ctx context.Context, seen *seenFamilies, c *Config) {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	all := seen.all
	before := p.pullStatus()
	for {
		select {
		case <-ctx.Done():
			return
		case <-all:
			all = nil
			p.out.printf("seen an alert of each kind; list them all with:\n  %stenantwatch sql \"SELECT starts_at, state, level, title, summary FROM alerts ORDER BY starts_at\"", dataDirPrefix(c))
		case <-tick.C:
			now, written := p.pullStatus(), p.write.Status()
			if !now.backfill {
				p.out.printf("live: %.0f events/s, %s rows written, newest event %s ago", float64(now.events-before.events)/liveEvery.Seconds(),
					thousands(written.Rows), time.Since(written.Newest).Round(100*time.Millisecond))
			}
			before = now
		}
	}
}
