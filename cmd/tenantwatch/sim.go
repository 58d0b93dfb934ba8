package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

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

	server, err := startSim(s.Addr, cfg)
	if err != nil {
		return err
	}
	defer server.close()

	// The output can be pasted into a shell.
	out := newConsole(a.stdout)
	out.printf("simulated tenant %s at %s; settings for tenantwatch or any other client:", s.Name, server.url)
	out.printf("")
	for _, line := range server.environ() {
		out.printf("export %s", line)
	}
	return server.wait(ctx)
}

// sim is a simulated tenant that is served on loopback.
type sim struct {
	tenant *auth0sim.Tenant
	url    *url.URL
	server *http.Server
	done   chan error
}

// startSim serves a tenant. auth0sim fills in the settings that cfg leaves empty.
func startSim(addr string, cfg auth0sim.Config) (*sim, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("simulated tenant: %w: choose another --addr", err)
	}

	// The port may have been 0, so the address is the listener's.
	s := &sim{
		tenant: auth0sim.New(cfg),
		url:    &url.URL{Scheme: "http", Host: listener.Addr().String()},
		done:   make(chan error, 1),
	}
	s.server = &http.Server{Handler: s.tenant, ReadHeaderTimeout: 10 * time.Second}
	go func() { s.done <- s.server.Serve(listener) }()
	return s, nil
}

// environ returns the settings with which tenantwatch pulls and probes the tenant.
func (s *sim) environ() []string {
	cfg := s.tenant.Config()
	return []string{
		"AUTH0_DOMAIN=" + s.url.String(),
		"AUTH0_CLIENT_ID=" + cfg.ClientID,
		"AUTH0_CLIENT_SECRET=" + cfg.ClientSecret,
		"TENANTWATCH_TENANT=" + cfg.Name,
		"PROBE_CLIENT_ID=" + cfg.ProbeClientID,
		"PROBE_USERNAME=" + cfg.Username,
		"PROBE_PASSWORD=" + cfg.Password,
		"PROBE_REALM=" + cfg.Realm,
	}
}

// wait returns when ctx ends or the server fails.
func (s *sim) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-s.done:
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("simulated tenant: %w", err)
	}
}

func (s *sim) close() { _ = s.server.Close() }
