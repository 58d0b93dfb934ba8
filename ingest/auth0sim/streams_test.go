package auth0sim

import (
	"encoding/json"
	"net/http"
	"testing"
)

// TestLogStreams: they are listed to who has the scope, as they stand.
func TestLogStreams(t *testing.T) {
	streams := []LogStream{{ID: "lst_1", Name: "one"}, {ID: "lst_2", Name: "two", Type: "splunk", Status: "suspended"}}
	sim := newTenant(t, Config{LogStreams: streams})
	if w := login(t, sim).get("/api/v2/log-streams"); w.Code != http.StatusForbidden {
		t.Errorf("without the scope: %d %s", w.Code, w.Body)
	}
	sim = newTenant(t, Config{LogStreams: streams, Scopes: []string{"read:log_streams"}})
	s := login(t, sim)
	if w := s.get("/api/v2/logs"); w.Code != http.StatusForbidden {
		t.Errorf("logs without their scope: %d %s", w.Code, w.Body)
	}
	list := func() []LogStream {
		t.Helper()
		w := s.get("/api/v2/log-streams")
		var got []LogStream
		if err := json.Unmarshal(w.Body.Bytes(), &got); w.Code != http.StatusOK || err != nil {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		return got
	}
	if got := list(); len(got) != 2 || got[0] != (LogStream{"lst_1", "one", "http", "active"}) || got[1] != streams[1] {
		t.Errorf("%+v", got)
	}
	if !sim.SetLogStream("lst_1", "paused") || sim.SetLogStream("lst_3", "paused") {
		t.Error("there are two streams")
	}
	if got := list(); got[0].Status != "paused" || got[1].Status != "suspended" {
		t.Errorf("%+v", got)
	}
	if streams[0].Status != "" {
		t.Error("the configuration was changed")
	}
}
