package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/demo"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
)

type simCmd struct {
	Addr    string        `default:"127.0.0.1:0" help:"Address to listen on. Port 0 picks a free one."`
	Name    string        `default:"demo" help:"Name of the tenant."`
	Seed    uint64        `default:"1" help:"Seed of the log: the same seed, anchor and sizes give the same events."`
	Anchor  time.Time     `help:"Time at which history ends and live events start, in RFC 3339. Default: now."`
	Events  int           `default:"10000" help:"Number of events in the history."`
	Span    time.Duration `default:"24h" help:"How far back the history reaches."`
	Rate    float64       `default:"10" help:"Live events per second."`
	Latency time.Duration `default:"0" help:"Delay of every answer."`
	Limit   float64       `default:"0" help:"Management API calls per second that are allowed. 0 for no limit."`
	Burst   int           `default:"50" help:"Management API calls that are allowed at once, with --limit."`
	Attacks bool          `default:"true" negatable:"" help:"Simulate recurring attacks and outages."`
}

// Run serves a simulated tenant until ctx ends.
func (s *simCmd) Run(ctx context.Context, a *app) error {
	cfg := auth0sim.Config{
		Name: s.Name, Seed: s.Seed, Anchor: s.Anchor, HistoryEvents: s.Events, HistorySpan: s.Span,
		LiveRate: s.Rate, Latency: s.Latency,
	}
	if s.Limit > 0 {
		cfg.Limit = auth0sim.Limit{Burst: s.Burst, PerSecond: s.Limit}
	}
	if s.Attacks {
		cfg.Attacks, cfg.ProbeOutages = auth0sim.DemoAttacks(), auth0sim.DemoOutages()
	}

	server, err := auth0sim.Listen(s.Addr, cfg)
	if err != nil {
		return fmt.Errorf("%w: choose another --addr", err)
	}
	defer server.Close()

	// The output can be pasted into a shell.
	out := output.NewConsole(a.stdout)
	out.Printf("simulated tenant %s at %s; settings for tenantwatch or any other client:", s.Name, server.URL)
	out.Printf("")
	for _, line := range demo.Environ(server) {
		out.Printf("export %s", line)
	}
	return server.Wait(ctx)
}
