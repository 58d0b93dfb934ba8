package pull

import (
	"context"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/schema"
)

// callDetails are the details of one of Auth0's management events.
type callDetails struct {
	Request struct {
		Method string `json:"method"`
		Path   string `json:"path"`
	} `json:"request"`
	Response struct {
		StatusCode int `json:"statusCode"`
		Body       struct {
			Error     string `json:"error,omitempty"`
			ErrorCode string `json:"errorCode,omitempty"`
			Message   string `json:"message,omitempty"`
		} `json:"body"`
	} `json:"response"`
}

// failedCall returns the event of a failed call of our own, in the form of Auth0's
// management events.
func failedCall(tenant string, failed *auth0.Error) schema.Event {
	var details callDetails
	details.Request.Method, details.Request.Path = failed.Method, failed.Path
	details.Response.StatusCode = failed.Status

	// Without an answer, the error itself is the message.
	body := &details.Response.Body
	body.Error, body.ErrorCode, body.Message = string(failed.Kind), failed.Code, failed.Message
	if failed.Status == 0 && failed.Err != nil {
		body.Message = failed.Err.Error()
	}
	return schema.NewOwnEvent(tenant, schema.TypeAPIError, failed.Error(), details)
}

// reportFailure sends an event of a failed call of our own, since Auth0 logs none. While
// Kafka is down, a bounded number is kept and the rest is dropped.
func (p *Puller) reportFailure(failed *auth0.Error) {
	event := failedCall(p.cfg.Tenant, failed)
	select {
	case p.ownEvents <- event.Record():
	default:
		p.cfg.Metrics.dropped.WithLabelValues(p.cfg.Tenant).Inc()
	}
}

// produceOwn produces our own events. If we stop here, events that are not produced yet
// are lost; the calls that they describe are made again.
func (p *Puller) produceOwn(ctx context.Context) error {
	for {
		var records []schema.Record
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-p.ownEvents:
			records = append(records, r)
		}

		// Produce the events that wait behind the first one together with it.
		for more := true; more; {
			select {
			case r := <-p.ownEvents:
				records = append(records, r)
			default:
				more = false
			}
		}

		if err := p.produce(ctx, records); err != nil {
			return p.describe("produce our own events", err)
		}
		p.count(schema.SourceSelf, len(records))
	}
}
