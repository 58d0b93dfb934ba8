package main

import (
	"context"
	"fmt"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/version"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/web"
)

// buildWeb serves metrics, health and the web page. It says nothing about its own readiness: while it does not
// work, nobody hears it.
func buildWeb(p *pipeline) (func(context.Context) error, error) {
	server, err := p.listen("HTTP_ADDR", p.cfg.HTTPAddr, func(addr string) string {
		return fmt.Sprintf("web:        http://%s (/metrics /livez /readyz /health/auth0)", addr)
	})
	if err != nil {
		return nil, err
	}

	return func(context.Context) error {
		p.add(part{role: roleWeb, stops: stopsLast, run: func(ctx context.Context) error {
			// By now every part has been added.
			pages := &web.Pages{Version: version.String(), Metrics: p.reg, Checks: p.checks(), Logins: p.logins}
			return server.Run(ctx, pages.Handler())
		}})
		return nil
	}, nil
}
