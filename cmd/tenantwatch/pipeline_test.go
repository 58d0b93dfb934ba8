package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
)

// TestStopOrder stops parts in their order, by the end of the context and by a failure.
func TestStopOrder(t *testing.T) {
	var mu sync.Mutex // guards ended
	var ended []string
	running := func(name string, stops order, started *sync.WaitGroup) part {
		started.Add(1)
		return part{name: name, stops: stops, run: func(ctx context.Context) error {
			started.Done()
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, name)
			return errors.New("a consequence of the stop")
		}}
	}
	parts := func(started *sync.WaitGroup) []part {
		ended = nil
		return []part{ // whatever the order in which they were added
			running("web", stopsLast, started), running("write", stopsSecond, started), running("pull", stopsFirst, started),
		}
	}
	want := []string{"pull", "write", "web"}

	var started sync.WaitGroup
	p := &pipeline{engines: &engines.Engines{}, parts: parts(&started)}
	ctx, stop := context.WithCancel(t.Context())
	go func() { started.Wait(); stop() }()
	if err := p.run(ctx); err != nil || !slices.Equal(ended, want) {
		t.Errorf("stopped: %v after %v", err, ended)
	}

	for fault, text := range map[error]string{errors.New("broken"): "scan: broken", nil: "scan: stopped unexpectedly"} {
		p = &pipeline{engines: &engines.Engines{}, parts: parts(&started)}
		p.add(part{role: roleScan, stops: stopsSecond, run: func(context.Context) error { started.Wait(); return fault }})
		if err := p.run(t.Context()); err == nil || err.Error() != text || !slices.Equal(ended, want) {
			t.Errorf("failed: %v after %v, want %s", err, ended, text)
		}
	}
}

// TestRoles shows what --roles may hold, and what each role requires.
func TestRoles(t *testing.T) {
	if got := strings.Join(defaultRoles(), ","); got != "pull,write,scan,probe,notify,web" {
		t.Errorf("by default %s", got)
	}
	for _, tt := range []struct {
		roles           string
		tenant, receive bool
	}{
		{"write,scan,notify,web", false, false}, {"write,pull", true, false}, {"probe", true, false}, {"receive", false, true},
		{"pull,receive", true, true},
	} {
		needs, err := (&runCmd{Roles: strings.Split(tt.roles, ",")}).needs()
		if err != nil || needs.Tenant != tt.tenant || needs.Receive != tt.receive {
			t.Errorf("%s: %+v, %v", tt.roles, needs, err)
		}
	}
}
