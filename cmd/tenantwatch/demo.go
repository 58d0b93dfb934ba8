package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/demo"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/logger"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/scanner/alert"
)

type demoCmd struct {
	Events int     `default:"200000" help:"Number of events in the simulated history."`
	Rate   float64 `default:"25" help:"Live events per second."`
}

// Run watches a simulated tenant until ctx ends.
func (d *demoCmd) Run(ctx context.Context, a *app) error {
	// Load the settings twice: the data folder holds the script, which determines the tenant, whose settings
	// are then added.
	environ := demo.WithoutTenant(a.environ)
	c, err := config.Load(environ, config.Need{})
	if err != nil {
		return err
	}
	script, err := demo.Continue(c.DataDir, d.Events, d.Rate)
	if errors.Is(err, demo.ErrOtherData) {
		return usageError(fmt.Sprintf("%s contains the data of another tenant: "+
			"set TENANTWATCH_DATA_DIR to another folder for the demo", c.DataDir))
	}
	if err != nil {
		return err
	}

	tenant, err := auth0sim.Listen("127.0.0.1:0", script.Tenant())
	if err != nil {
		return err
	}
	defer tenant.Close()
	environ = append(environ, demo.Environ(tenant)...)

	// Probe often enough to see the outage. No other client needs a share of the simulated tenant's limit.
	environ = append(environ, "PROBE_INTERVAL=3s", "TENANTWATCH_RATE_SHARE=1")
	if c, err = config.Load(environ, config.Need{Tenant: true}); err != nil {
		return err
	}

	// Tell people what to expect before the engines start, which takes seconds.
	out := output.NewConsole(a.stdout)
	if len(script.Starts) == 1 {
		out.Printf("demo: a simulated tenant with %s events of the last 24 hours, "+
			"then %.0f a second, attacks and an outage", output.Thousands(uint64(script.Events)), script.Rate)
	} else {
		out.Printf("demo: run %d of the tenant in %s; remove that folder to start over",
			len(script.Starts), c.DataDir)
	}
	out.Printf("tenant:     %s", tenant.URL)

	seen := demo.NewFamilies()
	log := logger.New(out.LogWriter(a.stderr), c)
	p, err := startPipeline(ctx, c, out, log, setup{roles: defaultRoles(), sinks: []alert.Sink{seen}})
	if err != nil {
		return err
	}
	// Only now this process holds the folder. A start that failed must not be in the script: it would change
	// the log of a demo that is already running.
	if err := script.Save(c.DataDir); err != nil {
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
		out.Printf("stopped; make demo continues from here")
	}
	return err
}

// liveInterval is how often the demo prints its throughput.
const liveInterval = 5 * time.Second

// showLive prints the throughput and, once an alert of each family has fired, how to list alerts.
func (p *pipeline) showLive(ctx context.Context, seen *demo.Families, c *config.Config) {
	const listAlerts = "SELECT starts_at, state, level, title, summary FROM alerts ORDER BY starts_at"
	tick := time.NewTicker(liveInterval)
	defer tick.Stop()

	all := seen.Seen()
	before := pull.Sum(p.pulls)
	for {
		select {
		case <-ctx.Done():
			return
		case <-all:
			all = nil // printed once
			p.out.Printf("seen an alert of each kind; list them all with:\n  %stenantwatch sql \"%s\"",
				dataDirPrefix(c), listAlerts)
		case <-tick.C:
			now, written := pull.Sum(p.pulls), p.writer.Status()
			if !now.Backfill {
				p.out.Printf("live: %.0f events/s, %s rows written, newest event %s ago",
					float64(now.Events-before.Events)/liveInterval.Seconds(), output.Thousands(written.Rows),
					time.Since(written.Newest).Round(100*time.Millisecond))
			}
			before = now
		}
	}
}
