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

// demoFile marks a data folder as the demo's, and holds its script.
const demoFile = "demo.json"

type demoCmd struct {
	Events int     `default:"200000" help:"Number of events in the simulated history."`
	Rate   float64 `default:"25" help:"Live events per second."`
}

// demoScript determines the log of the simulated tenant, so that the demo continues with the same log after
// a restart.
type demoScript struct {
	Seed   uint64      `json:"seed"`
	Anchor time.Time   `json:"anchor"`
	Events int         `json:"events"`
	Rate   float64     `json:"rate"`
	Starts []time.Time `json:"starts"` // of each run; attacks start again with each
}

// Run watches a simulated tenant until ctx ends.
func (d *demoCmd) Run(ctx context.Context, a *app) error {
	// Load the settings twice: the data folder holds the script, which determines the tenant, whose settings
	// are then added.
	environ := demoEnviron(a.environ)
	c, err := loadConfig(environ, need{})
	if err != nil {
		return err
	}
	script, err := d.script(c.DataDir)
	if err != nil {
		return err
	}

	tenant, err := startSim("127.0.0.1:0", script.tenant())
	if err != nil {
		return err
	}
	defer tenant.close()
	environ = append(environ, tenant.environ()...)

	// Probe often enough to see the outage. No other client needs a share of the simulated tenant's limit.
	environ = append(environ, "PROBE_INTERVAL=3s", "TENANTWATCH_RATE_SHARE=1")
	if c, err = loadConfig(environ, need{tenant: true}); err != nil {
		return err
	}

	// Tell people what to expect before the engines start, which takes seconds.
	out := newConsole(a.stdout)
	if len(script.Starts) == 1 {
		out.printf("demo: a simulated tenant with %s events of the last 24 hours, "+
			"then %.0f a second, attacks and an outage", thousands(uint64(script.Events)), script.Rate)
	} else {
		out.printf("demo: run %d of the tenant in %s; remove that folder to start over",
			len(script.Starts), c.DataDir)
	}
	out.printf("tenant:     %s", tenant.url)

	seen := newSeenFamilies()
	log := newLogger(a.logOutput(out), c)
	p, err := startPipeline(ctx, c, out, log, setup{roles: allRoles, sinks: []alert.Sink{seen}})
	if err != nil {
		return err
	}
	// Only now this process holds the folder. A start that failed must not be in the script: it would change
	// the log of a demo that is already running.
	if err := script.save(c.DataDir); err != nil {
		p.close()
		return err
	}
	p.printAddresses(out)

	// The throughput is printed until the pipeline has ended.
	liveCtx, stop := context.WithCancel(ctx)
	var live sync.WaitGroup
	live.Go(func() { p.showLive(liveCtx, seen, c) })
	err = p.run(ctx)
	stop()
	live.Wait()
	if err == nil {
		out.printf("stopped; make demo continues from here")
	}
	return err
}

// demoEnviron returns the environment without the settings of a real tenant, which do not apply to the demo.
func demoEnviron(environ []string) []string {
	tenantVars := []string{
		"AUTH0_", "PROBE_", "TENANTWATCH_TENANT=", "TENANTWATCH_BACKFILL=", "TENANTWATCH_RATE_SHARE=",
	}
	environ = slices.DeleteFunc(slices.Clone(environ), func(line string) bool {
		return slices.ContainsFunc(tenantVars, func(prefix string) bool { return strings.HasPrefix(line, prefix) })
	})

	isHTTPAddr := func(line string) bool { return strings.HasPrefix(line, "HTTP_ADDR=") }
	if !slices.ContainsFunc(environ, isHTTPAddr) {
		environ = append(environ, "HTTP_ADDR=127.0.0.1:0")
	}
	return environ
}

// script reads the script of the folder, or creates one, and adds this start.
func (d *demoCmd) script(dir string) (*demoScript, error) {
	file := filepath.Join(dir, demoFile)
	now := time.Now().UTC().Truncate(time.Millisecond)
	s := &demoScript{Seed: rand.Uint64N(1 << 53), Anchor: now, Events: d.Events, Rate: d.Rate}

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
		for _, part := range []string{kafkaDir, clickhouseDir} {
			if _, err := os.Stat(filepath.Join(dir, part)); err == nil {
				return nil, usageError(fmt.Sprintf("%s contains the data of another tenant: "+
					"set TENANTWATCH_DATA_DIR to another folder for the demo", dir))
			}
		}
	}

	first := len(s.Starts) == 0
	s.Starts = append(s.Starts, now)
	// Save a new script before anything else, so that the folder is known to be the demo's.
	if first {
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

	// If we stop before the rename, the old script is kept.
	file := filepath.Join(dir, demoFile)
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

// tenant returns the simulated tenant of the script. The attacks of a start end where those of the next one
// start; the log before that does not change.
func (s *demoScript) tenant() auth0sim.Config {
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

// seenFamilies is a sink that records which families of alerts have fired, and whether the probe has
// recovered.
type seenFamilies struct {
	mu      sync.Mutex // guards missing
	missing map[string]bool
	all     chan struct{} // closed when none is missing
}

// probeRecovered stands for the resolved alert of the probe among the families.
const probeRecovered = "probe recovered"

func newSeenFamilies() *seenFamilies {
	return &seenFamilies{all: make(chan struct{}), missing: map[string]bool{
		"rate limit": true, "authentication": true, "management api": true, "probe": true, probeRecovered: true}}
}

// Notify records an alert.
func (s *seenFamilies) Notify(_ context.Context, a *schema.Alert) error {
	family := alert.Family(a)
	if a.State == schema.Resolved {
		if family != "probe" {
			return nil
		}
		// Of resolved alerts only that of the probe counts: the outage is over.
		family = probeRecovered
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing[family] {
		delete(s.missing, family)
		if len(s.missing) == 0 {
			close(s.all)
		}
	}
	return nil
}

// liveInterval is how often the demo prints its throughput.
const liveInterval = 5 * time.Second

// showLive prints the throughput and, once an alert of each family has fired, how to list alerts.
func (p *pipeline) showLive(ctx context.Context, seen *seenFamilies, c *Config) {
	const listAlerts = "SELECT starts_at, state, level, title, summary FROM alerts ORDER BY starts_at"
	tick := time.NewTicker(liveInterval)
	defer tick.Stop()

	all := seen.all
	before := p.pullStatus()
	for {
		select {
		case <-ctx.Done():
			return
		case <-all:
			all = nil // printed once
			p.out.printf("seen an alert of each kind; list them all with:\n  %stenantwatch sql \"%s\"",
				dataDirPrefix(c), listAlerts)
		case <-tick.C:
			now, written := p.pullStatus(), p.write.Status()
			if !now.backfill {
				p.out.printf("live: %.0f events/s, %s rows written, newest event %s ago",
					float64(now.events-before.events)/liveInterval.Seconds(), thousands(written.Rows),
					time.Since(written.Newest).Round(100*time.Millisecond))
			}
			before = now
		}
	}
}
