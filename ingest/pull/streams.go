package pull

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	streamsEvery = 5 * time.Minute // interval of the checks
	streamsAgain = 6 * time.Hour   // interval at which an inactive stream is reported again
)

// streamActive is the status of a stream that delivers.
const streamActive = "active"

// watchStreams checks the tenant's log streams, if it has the permission, and produces an
// event for each change. Auth0 pauses a stream after a week of failed deliveries without
// any notice.
func (p *Puller) watchStreams(ctx context.Context) error {
	known := map[string]string{}       // status by id
	reported := map[string]time.Time{} // by id
	permitted, lastProblem := true, "" // as they were logged
	for {
		streams, err := p.logStreams(ctx)
		var failed *auth0.Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()

		case errors.As(err, &failed) && failed.Status == http.StatusForbidden:
			if permitted {
				p.cfg.Log.Info("log streams of the tenant are not watched: the scope read:log_streams is missing")
			}
			permitted = false

		case errors.As(err, &failed) && failed.Kind == auth0.KindAnswer:
			if text := err.Error(); text != lastProblem {
				lastProblem = text
				p.cfg.Log.Warn("some log streams of the tenant cannot be read; watching the others",
					"err", err, "others", len(streams))
			}

		case err != nil:
			p.cfg.Log.Debug("list log streams of the tenant failed", "err", err)

		default:
			permitted, lastProblem = true, ""
		}

		// After a failure, there are no streams, or some.
		now := time.Now()
		for _, stream := range streams {
			active := stream.Status == streamActive
			p.cfg.Metrics.streams.WithLabelValues(p.cfg.Tenant, stream.ID).Set(oneIf(active))

			// Report changes, and from time to time a stream that is not active.
			before, seen := known[stream.ID]
			known[stream.ID] = stream.Status
			unchanged := before == stream.Status
			if active && (!seen || unchanged) || !active && unchanged && now.Sub(reported[stream.ID]) < streamsAgain {
				continue
			}
			reported[stream.ID] = now
			if err := p.reportStream(ctx, stream); err != nil {
				return err
			}
		}

		if !sleep.For(ctx, streamsEvery) {
			return ctx.Err()
		}
	}
}

// reportStream logs the status of a stream and sends an event of it.
func (p *Puller) reportStream(ctx context.Context, stream auth0.LogStream) error {
	p.cfg.Log.Warn("log stream status", "stream", stream.Name, "id", stream.ID, "status", stream.Status)

	// Unlike a failed call, a change must not be dropped: wait for space.
	text := "Log stream " + stream.Name + " is " + stream.Status
	event := schema.NewOwnEvent(p.cfg.Tenant, schema.TypeLogStream, text, stream)
	select {
	case p.ownEvents <- event.Record():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// logStreams makes one paced call.
func (p *Puller) logStreams(ctx context.Context) ([]auth0.LogStream, error) {
	granted, err := p.limiter.Wait(ctx, pace.PriorityOverlap)
	if err != nil {
		return nil, err
	}
	streams, limit, err := p.tenant.LogStreams(ctx)
	p.limiter.Observe(limit, granted)
	p.holdFor(err)
	return streams, err
}
