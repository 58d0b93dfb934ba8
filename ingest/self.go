package ingest

import (
	"context"

	"github.com/tenantwatch/tenantwatch/schema"
)

// callDetails are those of Auth0's management events.
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

// failedCall makes an event of a failed call of our own, in the form of Auth0's
// management events.
func failedCall(tenant string, failed *CallError) schema.Event {
	var d callDetails
	d.Request.Method, d.Request.Path = failed.Method, failed.Path
	d.Response.StatusCode = failed.Status
	b := &d.Response.Body
	b.Error, b.ErrorCode, b.Message = string(failed.Kind), failed.Code, failed.Message
	if failed.Status == 0 && failed.Err != nil {
		b.Message = failed.Err.Error()
	}
	return schema.NewOwnEvent(tenant, schema.TypeAPIError, failed.Error(), d)
}

// tell makes an event of a failed call of our own: Auth0 logs none of them.
// While Kafka is away only so many are kept.
func (p *Puller) tell(failed *CallError) {
	e := failedCall(p.cfg.Tenant, failed)
	select {
	case p.self <- e.Record():
	default:
		p.cfg.Metrics.dropped.WithLabelValues(p.cfg.Tenant).Inc()
	}
}

// deliverSelf hands our own events to Kafka. Those that are under way when we die
// are lost: they tell of calls that are made again.
func (p *Puller) deliverSelf(ctx context.Context) error {
	for {
		var records []schema.Record
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-p.self:
			records = append(records, r)
		}
		for more := true; more; {
			select {
			case r := <-p.self:
				records = append(records, r)
			default:
				more = false
			}
		}
		if err := p.produce(ctx, records); err != nil {
			return p.describe("delivery of our own events", err)
		}
		p.count(schema.Self, len(records))
	}
}
