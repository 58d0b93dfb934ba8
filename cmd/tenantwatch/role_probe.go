package main

import (
	"context"

	"github.com/tenantwatch/tenantwatch/scanner/probe"
)

// buildProbe logs in to the tenants with a synthetic login, from time to time.
func buildProbe(p *pipeline) (func(context.Context) error, error) {
	return func(context.Context) error {
		metrics := probe.NewMetrics(p.reg)
		for _, tenant := range p.cfg.Tenants {
			login := &tenant.Probe
			if !login.Enabled() {
				continue
			}
			prober := probe.New(probe.Config{
				Tenant: tenant.Name, BaseURL: tenant.BaseURL, Interval: p.cfg.Parsed.ProbeEvery,
				ClientID: login.ClientID, ClientSecret: string(login.ClientSecret), Realm: login.Realm,
				Username: login.Username, Password: string(login.Password), Audience: login.Audience,
				Log: p.log.With("part", "probe", "tenant", tenant.Name), Metrics: metrics,
			}, p.engines.NewProducer(p.engines.Topics.Events))

			p.logins[tenant.Name] = prober.Verdict
			p.add(part{role: roleProbe, stops: stopsFirst, run: prober.Run, ready: works})
		}
		return nil
	}, nil
}
