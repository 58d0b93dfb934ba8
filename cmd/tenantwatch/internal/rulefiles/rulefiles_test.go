package rulefiles_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/rulefiles"
	"github.com/tenantwatch/tenantwatch/rules"
)

const rule = "title: Mine\nid: mine\nlogsource: {product: auth0}\ndetection:\n  s: {type: s}\n  condition: s\n"

// TestWatch changes a file: the new rules are applied once, and a broken file is refused.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, ".new"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "mine.yml")); err != nil {
			t.Fatal(err)
		}
	}
	write(rule)
	reg := prometheus.NewRegistry()
	files := rulefiles.New(&config.Config{Rules: []string{dir}}, slog.New(slog.DiscardHandler), reg)
	before := len(files.Load().Rules())

	applied := make(chan *rules.Set, 10)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- files.Watch(ctx, func(set *rules.Set) { applied <- set }) }()
	write(rule + "---\n" + "title: Second\nid: second\nlogsource: {product: auth0}\ndetection:\n  s: {type: f}\n  condition: s\n")
	select {
	case set := <-applied:
		if n := len(set.Rules()); n != before+1 {
			t.Errorf("%d rules, want %d", n, before+1)
		}
	case <-time.After(time.Minute):
		t.Fatal("the change is not applied")
	}

	write(rule + "---\ntitle: broken\ndetection:\n  s: {a|like: b}\n  condition: s\n")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); reloads(t, reg, "refused") == 0; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the broken file is not refused")
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if len(applied) > 0 || reloads(t, reg, "done") != 1 {
		t.Errorf("applied %d more", len(applied))
	}
}

// reloads is the number of reloads with a result.
func reloads(t *testing.T, reg *prometheus.Registry, result string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "tenantwatch_rules_reloads_total" && metric.GetLabel()[0].GetValue() == result {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}
