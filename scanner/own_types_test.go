package scanner

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner/scannertest"
	"github.com/tenantwatch/tenantwatch/schema"
)

const ownDetections = `
title: failed
id: failed
detection: {s: {type: fp}, condition: s}
---
title: ended
id: ended
detection: {s: {type: [fp, s]}, condition: s}
---
`

// firings are when a rule begins to fire, and with what value.
func firings(t *testing.T, document string, events []schema.Event) []string {
	t.Helper()
	set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(ownDetections + document)}})
	if n := report.Count(rules.StatusRefused); n > 0 {
		t.Fatalf("%+v", report.Documents)
	}
	var got []string
	for _, a := range scannertest.Scan(NewEngine(set, Config{MaxAge: 1000 * time.Hour}), events) {
		if a.State == schema.StateFiring && a.RuleID == "r" {
			got = append(got, fmt.Sprintf("%s %.3f", a.StartsAt.Sub(scannertest.Start), a.Count))
		}
	}
	return got
}

// TestEventRatio holds when a ratio first fires against a count of everything at each
// event.
func TestEventRatio(t *testing.T) {
	if testing.Short() {
		t.Skip("an engine has one goroutine: the race detector has nothing to see")
	}
	fired := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		least, than := 5+r.IntN(20), float64(3+r.IntN(6))/10
		var events []schema.Event
		type one struct {
			at     time.Duration
			failed bool
		}
		var all []one
		at := time.Duration(0)
		want := ""
		for i := range 300 {
			at += time.Duration(r.IntN(60)) * time.Second
			x := one{at, r.IntN(100) < 20+i/6}
			typ := map[bool]string{true: "fp", false: "s"}[x.failed]
			if r.IntN(10) == 0 { // not looked at
				events = append(events, scannertest.Event(t, scannertest.Start.Add(at), 1000+i, map[string]any{"type": "other"}))
			}
			events = append(events, scannertest.Event(t, scannertest.Start.Add(at), i, map[string]any{"type": typ}))
			all = append(all, x)
			n, failed := 0, 0
			for _, x := range all {
				if x.at > at-15*time.Minute {
					n++
					if x.failed {
						failed++
					}
				}
			}
			if ratio := float64(failed) / float64(n); want == "" && n >= least && ratio >= than {
				want = fmt.Sprintf("%s %.3f", at, ratio)
			}
		}
		got := firings(t, fmt.Sprintf("title: r\nid: r\nlevel: low\nx-tenantwatch-correlation: {type: event_ratio, rules: failed, among: ended, min: %d, timespan: 15m, condition: {gte: %v}}\n", least, than), events)
		if want != "" {
			fired++
		}
		if first := slices.Concat(got, []string{""})[0]; first != want {
			t.Errorf("seed %d: first %q, want %q", seed, first, want)
		}
		// As long as they are within the lateness, late ones are counted where they belong.
		late := slices.Clone(events)
		for i := range late {
			if j := i + r.IntN(3); j < len(late) && late[j].Date.Sub(late[i].Date) < 4*time.Minute {
				late[i], late[j] = late[j], late[i]
			}
		}
		set, _ := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(ownDetections + "title: r\nid: r\nlevel: low\nx-tenantwatch-correlation: {type: event_ratio, rules: failed, among: ended, min: 1, timespan: 15m, condition: {gte: 0}}\n")}})
		e := NewEngine(set, Config{})
		for i := range late {
			e.Observe(&late[i])
		}
		for _, g := range e.rules[0].groups {
			matches := uint64(0)
			for i := range g.window {
				if g.window[i].Seen != 0 {
					matches++
				}
			}
			ratio, _, _ := g.rule.evaluate(append(g.window[:0:0], g.window...), len(g.window)-1)
			in := g.window[g.window.Begin(len(g.window)-1, g.rule.span):]
			if got := uint64(math.Round(ratio * float64(len(in)))); len(in) == len(g.window) && got != matches {
				t.Errorf("seed %d: %d matches in a window that has %d", seed, got, matches)
			}
		}
	}
	if fired < 30 {
		t.Errorf("%d of 60 fired: that shows nothing", fired)
	}
}

// TestEventSpike compares an hour with the same hour of seven days.
func TestEventSpike(t *testing.T) {
	const document = "title: r\nid: r\nlevel: low\nx-tenantwatch-correlation: {type: event_spike, rules: failed, min: 20, over: 7d, timespan: 1h, condition: {gte: 2.5}}\n"
	const day = 24 * time.Hour
	// hour makes n events within an hour of a day.
	n := 0
	hour := func(days, hours, count int) (list []schema.Event) {
		for i := range count {
			n++
			list = append(list, scannertest.Event(t, scannertest.Start.Add(time.Duration(days)*day+time.Duration(hours)*time.Hour+time.Duration(i)*time.Hour/time.Duration(count)), n, map[string]any{"type": "fp"}))
		}
		return list
	}
	week := func(counts ...int) (list []schema.Event) {
		for d, count := range counts {
			list = slices.Concat(list, hour(d, 0, count), hour(d, 12, 100)) // noon is another matter
		}
		return list
	}
	for _, c := range []struct {
		name string
		past []schema.Event
		now  []schema.Event
		want []string
	}{
		{"nearly twice as many as usual", week(20, 22, 18, 20, 25, 15, 20), hour(7, 0, 40), nil},
		{"three times as many", week(20, 22, 18, 20, 25, 15, 20), hour(7, 0, 60), []string{"168h19m0s 2.857"}},
		{"one day was as bad: the median is as usual", week(20, 22, 18, 200, 25, 15, 20), hour(7, 0, 60), []string{"168h19m0s 2.857"}},
		{"few, but more than usual", week(1, 1, 1, 1, 1, 1, 1), hour(7, 0, 19), nil},
		{"usually none at this hour", week(0, 0, 0, 0, 0, 0, 0), hour(7, 0, 20), []string{"168h57m0s 20.000"}},
		{"three days are known", week(0, 0, 0, 0, 20, 20, 20), hour(7, 0, 60), []string{"168h57m0s 20.000"}},
	} {
		if c.name == "three days are known" { // noon of the first days is not there either
			c.past = slices.DeleteFunc(c.past, func(ev schema.Event) bool { return ev.Date.Before(scannertest.Start.Add(4 * day)) })
			c.want = nil
		}
		got := firings(t, document, slices.Concat(c.past, c.now))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
