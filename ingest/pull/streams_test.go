package pull_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// TestStreams shows which changes of a tenant's log streams become events.
func TestStreams(t *testing.T) {
	forbidden := &auth0.Error{Method: "GET", Path: "/api/v2/log-streams", Status: 403, Kind: auth0.KindForbidden}
	const look = 5 * time.Minute
	for _, tt := range []struct {
		name  string
		at    func(look int) (status string, err error) // of the only stream, at the n-th look from 0; "" for none
		lasts time.Duration
		want  string // statuses in the events
	}{
		{"active all the time", func(int) (string, error) { return "active", nil }, 24 * time.Hour, ""},
		{"none", func(int) (string, error) { return "", nil }, time.Hour, ""},
		{"paused and active again", func(n int) (string, error) {
			return []string{"active", "paused", "paused", "active", "active"}[min(n, 4)], nil
		}, 4 * time.Hour, "paused active"},
		{"suspended", func(n int) (string, error) { return []string{"active", "paused", "suspended"}[min(n, 2)], nil }, time.Hour, "paused suspended"},
		{"suspended at the first look, told again every six hours", func(int) (string, error) { return "suspended", nil }, 13 * time.Hour, "suspended suspended suspended"},
		{"a new one", func(n int) (string, error) { return []string{"", "active", "active"}[min(n, 2)], nil }, time.Hour, ""},
		{"may not be read", func(int) (string, error) { return "", forbidden }, 24 * time.Hour, ""},
		{"cannot be read for a while", func(n int) (string, error) {
			if n%2 == 0 {
				return "", errors.New("no answer")
			}
			return []string{"active", "paused"}[min(n/20, 1)], nil
		}, 3 * time.Hour, "paused"},
		{"may be read from some time on", func(n int) (string, error) {
			if n == 0 {
				return "", forbidden
			}
			return []string{"", "active", "paused"}[min(n, 2)], nil
		}, time.Hour + look, "paused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTenant())
				looks := 0
				w.tenant.streams = func() ([]auth0.LogStream, error) {
					status, err := tt.at(looks)
					looks++
					if status == "" || err != nil {
						return nil, err
					}
					return []auth0.LogStream{{ID: "lst_1", Name: "to the SIEM", Type: "http", Status: status}}, nil
				}
				p, stop := w.run(pull.Config{Poll: time.Minute})
				time.Sleep(tt.lasts + time.Second)
				stop()
				var got []string
				for _, e := range w.own(schema.TypeLogStream) {
					_, rest, _ := strings.Cut(string(e.Raw), `"details":{"id":"lst_1","name":"to the SIEM","type":"http","status":"`)
					status, _, _ := strings.Cut(rest, `"`)
					got = append(got, status)
				}
				if strings.Join(got, " ") != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if len(w.own(schema.TypeAPIError)) != 0 || p.Status().Failing != "" {
					t.Errorf("it counts as a failure: %q", p.Status().Failing)
				}
				if n := w.log.count("not watched"); n > 1 || w.log.count("WARN") != len(got) || w.log.count("ERROR") != 0 {
					t.Errorf("log:\n%.2000s", w.log)
				}
				if least := int(tt.lasts / time.Hour); looks < least || looks > int(tt.lasts/look)+2 {
					t.Errorf("%d looks within %s", looks, tt.lasts)
				}
			})
		})
	}
}
