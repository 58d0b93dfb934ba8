package ingest

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// How often the tenant's log streams are looked at, and how often it is said
// again that one is not active.
const (
	streamsEvery = 5 * time.Minute
	streamsAgain = 6 * time.Hour
)

// streamActive is the status of a stream that delivers.
const streamActive = "active"

// watchStreams looks at the tenant's log streams, when it may, and makes an event
// of each change: Auth0 pauses a stream after a week of failed deliveries and
// tells nobody.
func (p *Puller) watchStreams(ctx context.Context) error {
	known := map[string]string{}
	told := map[string]time.Time{}
	allowed, trouble := true, ""
	for {
		streams, err := p.logStreams(ctx)
		var refused *CallError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused) && refused.Status == http.StatusForbidden:
			if allowed {
				p.cfg.Log.Info("the tenant's log streams are not watched; that needs the scope read:log_streams")
			}
			allowed = false
		case errors.As(err, &refused) && refused.Kind == KindAnswer:
			if text := err.Error(); text != trouble {
				trouble = text
				p.cfg.Log.Warn("log streams of the tenant cannot be read; the others are watched", "err", err, "others", len(streams))
			}
		case err != nil:
			p.cfg.Log.Debug("the tenant's log streams cannot be read", "err", err)
		default:
			allowed, trouble = true, ""
		}
		now := time.Now()
		for _, s := range streams {
			active := s.Status == streamActive
			p.cfg.Metrics.streams.WithLabelValues(p.cfg.Tenant, s.ID).Set(map[bool]float64{true: 1}[active])
			before, seen := known[s.ID]
			known[s.ID] = s.Status
			if active && (!seen || before == s.Status) || !active && before == s.Status && now.Sub(told[s.ID]) < streamsAgain {
				continue
			}
			told[s.ID] = now
			p.cfg.Log.Warn("a log stream of the tenant has changed", "stream", s.Name, "id", s.ID, "status", s.Status)
			e := schema.NewOwnEvent(p.cfg.Tenant, schema.TypeLogStream, "Log stream "+s.Name+" is "+s.Status, s)
			select {
			case p.self <- e.Record():
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if !sleep(ctx, streamsEvery) {
			return ctx.Err()
		}
	}
}

// logStreams is one paced call.
func (p *Puller) logStreams(ctx context.Context) ([]LogStream, error) {
	granted, err := p.pacer.Wait(ctx, Overlap)
	if err != nil {
		return nil, err
	}
	streams, limit, err := p.tenant.LogStreams(ctx)
	p.pacer.Observe(limit, granted)
	p.holdFor(err)
	return streams, err
}
