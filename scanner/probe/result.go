package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Result is the outcome of one run.
type Result struct {
	At      time.Time
	OK      bool
	Status  int    // of the response, 0 without one
	Error   string // Auth0's error code, or the kind of failure; empty if OK
	Message string
	Latency time.Duration // 0 if no call was made
	Wait    time.Duration // requested by the response before the next run; 0 for none
}

// produceResults produces queued results until ctx ends. Results that are queued at the
// end are lost: the next start probes at once.
func (p *Probe) produceResults(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case result := <-p.results:
			event, err := p.event(result)
			if err != nil {
				return err
			}
			if err := p.events.Produce(ctx, []schema.Record{event.Record()}, nil); err != nil {
				return fmt.Errorf("probe result: %w", err)
			}
		}
	}
}

// event returns a result in the form of a tenant log event.
func (p *Probe) event(r Result) (schema.Event, error) {
	at := r.At.UTC().Truncate(time.Millisecond)
	id := fmt.Sprintf("tenantwatch-probe-%s-%s-%d", p.cfg.Tenant, Name, r.At.UnixNano())
	description := "Synthetic login succeeded"
	if !r.OK {
		description = "Synthetic login failed: " + r.Error
		if r.Message != "" {
			description += ": " + r.Message
		}
	}

	// A log_id of our own, so that a repeated record is the same event.
	raw, err := json.Marshal(map[string]any{
		"log_id":      id,
		"date":        at.Format("2006-01-02T15:04:05.000Z"),
		"type":        schema.TypeProbe,
		"description": description,
		"tenant_name": p.cfg.Tenant,
		"hostname":    p.cfg.BaseURL.Host,
		"connection":  p.cfg.Realm,
		"details": map[string]any{
			"probe":      Name,
			"ok":         r.OK,
			"status":     r.Status,
			"error":      r.Error,
			"message":    r.Message,
			"latency_ms": float64(r.Latency.Microseconds()) / 1000,
		},
	})
	if err != nil {
		return schema.Event{}, fmt.Errorf("probe result: %w", err)
	}
	return schema.Event{
		Tenant:    p.cfg.Tenant,
		Source:    schema.SourceProbe,
		FetchedAt: r.At,
		LogID:     id,
		Type:      schema.TypeProbe,
		Date:      at,
		Raw:       raw,
	}, nil
}
