package pull

import (
	"context"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// Tenant is a tenant's log API. Calls block until the answer is received or ctx
// ends, and do not retry. Every error except the end of ctx is an *auth0.Error. Calls
// may run concurrently.
type Tenant interface {
	// Logs returns up to take events that were stored after the event with the
	// id from, in the order of their ids. The id need not exist. An empty page
	// means that there are no events yet.
	Logs(ctx context.Context, from string, take int) (auth0.Page, error)
	// Oldest returns some of the oldest events. It is for a tenant that rejects
	// synthetic ids, that is, ids that it has not issued.
	Oldest(ctx context.Context) (auth0.Page, error)
	// LogStreams lists the streams by which the tenant sends its log elsewhere. An
	// error of auth0.KindAnswer comes with the streams that could be read.
	LogStreams(ctx context.Context) ([]auth0.LogStream, auth0.Limit, error)
}
