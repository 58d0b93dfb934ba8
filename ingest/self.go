package ingest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// selfEvent makes an event of a failed call of our own, in the form of Auth0's
// management events.
func selfEvent(tenant string, failed *CallError, at time.Time) schema.Event {
	at = at.UTC().Truncate(time.Millisecond)
	type body struct {
		Error     string `json:"error,omitempty"`
		ErrorCode string `json:"errorCode,omitempty"`
		Message   string `json:"message,omitempty"`
	}
	message := failed.Message
	if failed.Status == 0 && failed.Err != nil {
		message = failed.Err.Error()
	}
	var e struct {
		LogID       string    `json:"log_id"`
		Date        time.Time `json:"date"`
		Type        string    `json:"type"`
		Description string    `json:"description"`
		TenantName  string    `json:"tenant_name"`
		Details     struct {
			Request struct {
				Method string `json:"method"`
				Path   string `json:"path"`
			} `json:"request"`
			Response struct {
				StatusCode int  `json:"statusCode"`
				Body       body `json:"body"`
			} `json:"response"`
		} `json:"details"`
	}
	// Two failures of one tenant within a nanosecond would be one event.
	e.LogID = fmt.Sprintf("tenantwatch-call-%s-%d", tenant, time.Now().UnixNano())
	e.Date, e.Type, e.Description, e.TenantName = at, schema.TypeAPIError, failed.Error(), tenant
	e.Details.Request.Method, e.Details.Request.Path = failed.Method, failed.Path
	e.Details.Response.StatusCode = failed.Status
	e.Details.Response.Body = body{Error: string(failed.Kind), ErrorCode: failed.Code, Message: message}
	raw, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return schema.Event{Tenant: tenant, Source: schema.Self, FetchedAt: at, LogID: e.LogID, Type: e.Type, Date: at, Raw: raw}
}
