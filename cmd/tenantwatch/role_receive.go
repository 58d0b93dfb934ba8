package main

import (
	"context"
	"fmt"

	"github.com/tenantwatch/tenantwatch/ingest/logstream"
)

// buildReceive receives the tenants' log streams.
func buildReceive(p *pipeline) (func(context.Context) error, error) {
	server, err := p.listen("RECEIVE_ADDR", p.cfg.Receive.Addr, func(addr string) string {
		return fmt.Sprintf("log stream: http://%s/logs/TENANT", addr)
	})
	if err != nil {
		return nil, err
	}

	return func(context.Context) error {
		tokens := map[string]string{}
		for _, tenant := range p.cfg.Tenants {
			tokens[tenant.Name] = string(tenant.ReceiveToken)
		}
		cfg := logstream.Config{Tokens: tokens, Log: p.log.With("part", "receive"), Registerer: p.reg}
		receiver := logstream.New(cfg, p.engines.NewProducer(p.engines.Topics.Events))

		run := func(ctx context.Context) error { return server.Run(ctx, receiver) }
		p.add(part{role: roleReceive, stops: stopsFirst, run: run, ready: works})
		return nil
	}, nil
}
