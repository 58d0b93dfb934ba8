package web

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestPages asks each page while all is well, and while nothing is.
func TestPages(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantwatch_test", Help: "A test."}))
	problem, works := "", true
	check := func(role string) Check { return Check{role, func(context.Context) string { return problem }} }
	login := func() (bool, []string) {
		if works {
			return true, []string{"an old reason"}
		}
		return false, []string{"login: refused"}
	}
	one := &Pages{Version: "1.2.3", Metrics: reg, Checks: []Check{check("pull"), check("write")}, Logins: map[string]Verdict{"acme": login}}
	two := &Pages{Metrics: reg, Logins: map[string]Verdict{"east": login, "west": login}}
	none := &Pages{Metrics: reg}
	for _, tt := range []struct {
		name    string
		pages   *Pages
		path    string
		problem string
		works   bool
		status  int
		want    string
	}{
		{"start", one, "/", "", true, 200, "tenantwatch 1.2.3\n"},
		{"no such page", one, "/more", "", true, 404, "404"},
		{"metrics", one, "/metrics", "", true, 200, "\ntenantwatch_test 0\n"},
		{"alive", one, "/livez", "all is lost", false, 200, "OK\n"},
		{"ready", one, "/readyz", "", true, 200, "pull: ok\nwrite: ok\n"},
		{"not ready", one, "/readyz", "no Kafka", true, 503, "pull: no Kafka\nwrite: no Kafka\n"},
		{"login works", one, "/health/auth0", "", true, 200, "OK\n"},
		{"login fails", one, "/health/auth0", "", false, 503, "login: refused\n"},
		{"login of a tenant", one, "/health/auth0/acme", "", true, 200, "OK\n"},
		{"login of another tenant", one, "/health/auth0/other", "", true, 404, "no probe for tenant other\n"},
		{"logins fail", two, "/health/auth0", "", false, 503, "east: login: refused\nwest: login: refused\n"},
		{"no probe", none, "/health/auth0", "", true, 503, "no probe: set PROBE_CLIENT_ID, PROBE_USERNAME and PROBE_PASSWORD\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			problem, works = tt.problem, tt.works
			answer := httptest.NewRecorder()
			tt.pages.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, tt.path, nil))
			if answer.Code != tt.status || !strings.Contains(answer.Body.String(), tt.want) {
				t.Errorf("%d %q, want %d %q", answer.Code, answer.Body.String(), tt.status, tt.want)
			}
		})
	}
}

// TestServer serves until its context ends; a request in flight is answered.
func TestServer(t *testing.T) {
	server, err := Listen("HTTP_ADDR", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("HTTP_ADDR", server.Addr()); err == nil || !strings.Contains(err.Error(), "choose another port, or 0 for a free one") {
		t.Errorf("a port in use: %v", err)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(begun)
			<-end
			_, _ = io.WriteString(w, "done")
		}))
	}()

	body := make(chan string, 1)
	go func() {
		res, err := http.Get("http://" + server.Addr())
		if err != nil {
			body <- err.Error()
			return
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		body <- string(text)
	}()
	<-begun
	stop()
	close(end)
	if got := <-body; got != "done" {
		t.Errorf("a request in flight: %q", got)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	server.Close() // again
}
