package scanner

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/scanner/scannertest"
	"github.com/tenantwatch/tenantwatch/schema"
)

// TestCorrelationsAgree runs random correlations, some of others, over random
// events, and holds when each group first alerts against the plain reading.
func TestCorrelationsAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	tried, fired, chained := map[string]int{}, map[string]int{}, 0
	for seed := range uint64(400) {
		scenario, ok := scannertest.NewScenario(t, rand.New(rand.NewPCG(seed, 11)))
		if !ok {
			continue
		}
		text, set, list, events, raw := scenario.Text, scenario.Set, scenario.Correlations, scenario.Plain, scenario.Events
		hits := map[string][]scannertest.PlainHit{}
		for i, e := range events {
			for _, d := range []string{"a", "b", "c"} {
				if e.Type == d || e.Type == "ab" || e.Type == "abc" {
					hits["r"+d] = append(hits["r"+d], scannertest.PlainHit{Event: i})
				}
			}
		}
		type first struct {
			At    time.Duration
			Value float64
		}
		want, got := map[string]first{}, map[string]first{}
		for _, c := range list {
			tried[c.Type]++
			hits[c.ID] = c.Evaluate(events, hits)
			for _, h := range hits[c.ID] {
				if _, known := want[c.ID+" "+h.Group]; !known {
					want[c.ID+" "+h.Group] = first{events[h.Event].At, math.Round(h.Value*1e6) / 1e6}
					fired[c.Type]++
				}
			}
			if slices.ContainsFunc(c.Rules, func(rule string) bool { return rule[0] == 'c' && len(hits[rule]) > 0 }) && len(hits[c.ID]) > 0 {
				chained++
			}
		}
		byID := map[string]*scannertest.PlainCorrelation{}
		for _, c := range list {
			byID[c.ID] = c
		}
		for _, a := range scannertest.Scan(NewEngine(set, Config{}), raw) {
			c := byID[a.RuleID]
			if c == nil || a.State != schema.StateFiring {
				continue
			}
			var key []string
			for _, name := range c.GroupBy {
				i := slices.IndexFunc(a.Group, func(g schema.GroupValue) bool { return g.Field == name })
				key = append(key, a.Group[i].Value)
			}
			group := a.RuleID + " " + strings.Join(key, "/")
			if _, known := got[group]; !known {
				got[group] = first{a.StartsAt.Sub(scannertest.Start), math.Round(a.Count*1e6) / 1e6}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d (-plainly +engine):\n%s\n%s", seed, diff, text)
		}
	}
	for typ, n := range tried {
		if n < 50 || fired[typ] < 20 {
			t.Errorf("%s was tried %d times and fired %d times: that shows nothing", typ, n, fired[typ])
		}
	}
	if len(tried) != 7 || chained < 30 {
		t.Errorf("%d types, %d chains that fired", len(tried), chained)
	}
}
