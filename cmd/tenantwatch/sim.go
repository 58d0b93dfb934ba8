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
	Addr    string        `default:"127.0.0.1:0" help:"Where to listen; port 0 takes any."`
	Name    string        `default:"demo" help:"The tenant's name."`
	Seed    uint64        `default:"1" help:"Decides every event: the same seed, anchor and sizes give the same log."`
	Anchor  time.Time     `help:"Where history ends and live events begin, RFC 3339. Default: now."`
	Events  int           `default:"10000" help:"Events in the history."`
	Span    time.Duration `default:"24h" help:"How far back the history reaches."`
	Rate    float64       `default:"10" help:"Live events per second."`
	Latency time.Duration `default:"0" help:"Delay of every answer."`
	Limit   float64       `default:"0" help:"Management API calls per second that are answered; 0 = no limit."`
	Burst   int           `default:"50" help:"Calls that a rested limit allows at once."`
	Attacks bool          `default:"true" negatable:"" help:"Attacks and outages, again and again."`
}

// Run serves a simulated tenant until ctx ends.
func (s *simCmd) Run(ctx context.Context, a *app) error {
	cfg := auth0sim.Config{Name: s.Name, Seed: s.Seed, Anchor: s.Anchor, HistoryEvents: s.Events, HistorySpan: s.Span,
		LiveRate: s.Rate, Latency: s.Latency}
	if s.Limit > 0 {
		cfg.Limit = auth0sim.Limit{Burst: s.Burst, PerSecond: s.Limit}
	}
	if s.Attacks {
		cfg.Attacks, cfg.ProbeOutages = auth0sim.DemoAttacks(), auth0sim.DemoOutages()
	}
	sim, err := startSim(s.Addr, cfg)
	if err != nil {
		return err
	}
	defer sim.close()
	out := newConsole(a.stdout)
	out.printf("simulated tenant %s at %s; point tenantwatch or any client at it:", s.Name, sim.url)
	out.printf("")
	for _, line := range sim.environ() {
		out.printf("export %s", line)
	}
	return sim.wait(ctx)
}

// sim is a simulated tenant that is served on loopback.
type sim struct {
	tenant *auth0sim.Tenant
	url    *url.URL
	server *http.Server
	done   chan error
}

// startSim serves a tenant. It answers for itself what cfg leaves open.
func startSim(addr string, cfg auth0sim.Config) (*sim, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("simulated tenant: %w: choose another --addr", err)
	}
	s := &sim{tenant: auth0sim.New(cfg), url: &url.URL{Scheme: "http", Host: l.Addr().String()}, done: make(chan error, 1)}
	s.server = &http.Server{Handler: s.tenant, ReadHeaderTimeout: 10 * time.Second}
	go func() { s.done <- s.server.Serve(l) }()
	return s, nil
}

// environ is the settings that reach the tenant.
func (s *sim) environ() []string {
	c := s.tenant.Config()
	return []string{
		"AUTH0_DOMAIN=" + s.url.String(),
		"AUTH0_CLIENT_ID=" + c.ClientID,
		"AUTH0_CLIENT_SECRET=" + c.ClientSecret,
		"TENANTWATCH_TENANT=" + c.Name,
		"PROBE_CLIENT_ID=" + c.ProbeClientID,
		"PROBE_USERNAME=" + c.Username,
		"PROBE_PASSWORD=" + c.Password,
		"PROBE_REALM=" + c.Realm,
	}
}

// wait serves until ctx ends.
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
