package auth0sim

import (
	"cmp"
	"net/http"
)

// listedStream is a log stream as the Management API lists it.
type listedStream struct {
	ID     string         `json:"id"`
	Name   string         `json:"name"`
	Type   string         `json:"type"`
	Status string         `json:"status"`
	Sink   map[string]any `json:"sink"`
}

// listStreams serves GET /api/v2/log-streams.
func (t *Tenant) listStreams(w http.ResponseWriter, _ *http.Request) {
	t.mu.Lock()
	list := make([]listedStream, 0, len(t.streams))
	for _, stream := range t.streams {
		list = append(list, listedStream{
			ID:     stream.ID,
			Name:   stream.Name,
			Type:   cmp.Or(stream.Type, "http"),
			Status: cmp.Or(stream.Status, "active"),
			Sink: map[string]any{
				"httpEndpoint":      "https://siem.example.com/logs",
				"httpContentFormat": "JSONLINES",
			},
		})
	}
	t.mu.Unlock()

	// Outside the lock: a slow client must not block the tenant.
	writeJSON(w, http.StatusOK, managementJSON, list)
}

// SetLogStream sets the status of a log stream of Config.LogStreams. It reports
// whether the stream exists.
func (t *Tenant) SetLogStream(id, status string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.streams {
		if t.streams[i].ID == id {
			t.streams[i].Status = status
			return true
		}
	}
	return false
}
