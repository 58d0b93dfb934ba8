package expr_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// allRules are the built-in rules, those in the manner of Auth0's catalog and, where it is
// there, that itself, with every variable set.
func allRules() *rules.Set {
	vars := rules.Vars{
		"global_client_id": {"dashboard"}, "api_explorer_client_id": {"explorer"}, "your-tenant-url": {"t.auth0.com"},
		"your-tenant-domain": {"t.eu.auth0.com"}, "trusted-client_id-1": {"trusted1"}, "trusted-client_id-2": {"trusted2"},
	}
	set, _ := rules.Load(vars, builtin.FS(), os.DirFS(filepath.Join("..", "testdata", "catalog")), os.DirFS(filepath.Join("..", "..", "..", "shared", "data", "auth0-detections")))
	return set
}

// simulated are events of a simulated tenant.
func simulated(n int) [][]byte {
	cfg := auth0sim.Config{Seed: 7, Anchor: time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC), HistoryEvents: n, HistorySpan: time.Hour}
	cfg.Now = func() time.Time { return cfg.Anchor }
	for _, kind := range []auth0sim.AttackKind{auth0sim.AttackManagementErrors, auth0sim.AttackBruteForce, auth0sim.AttackPushBombing, auth0sim.AttackTokenReuse, auth0sim.AttackRateLimit} {
		cfg.Attacks = append(cfg.Attacks, auth0sim.Attack{Kind: kind, At: -30 * time.Minute})
	}
	tenant := auth0sim.New(cfg)
	var list [][]byte
	for _, id := range tenant.IDs() {
		raw, _ := tenant.Event(id)
		list = append(list, raw)
	}
	return list
}

// TestProgramsAgree holds what is run over an event of a type against the rules as
// they are written, over everything that the event has. Each event comes with its type
// in several forms and places.
func TestProgramsAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("a matcher has one goroutine: the race detector has nothing to see")
	}
	set := allRules()
	m, plain := set.Matcher(), set.Matcher()
	matched := 0
	check := func(raw []byte) {
		t.Helper()
		got := slices.Clone(m.Match(raw))
		plain.ReadAll(raw)
		want := plain.AsWritten()
		matched += len(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%s\nmatches %v, as written %v", raw, got, want)
		}
		for _, i := range got {
			for _, f := range m.Extra(i) {
				a, b := m.AppendTexts(nil, f), plain.AppendTexts(nil, f)
				if !slices.EqualFunc(a, b, func(a, b expr.Text) bool { return bytes.Equal(a.Text, b.Text) && a.Quoted == b.Quoted }) {
					t.Fatalf("%s\n%s is %v, should be %v", raw, f.Path, a, b)
				}
			}
		}
	}
	for _, raw := range simulated(2000) {
		check(raw)
		at := bytes.Index(raw, []byte(`"type":`))
		end := at + bytes.IndexByte(raw[at:], ',')
		typ, rest := raw[at:end], slices.Concat(raw[:at], raw[end+1:])
		body := rest[1 : len(rest)-1]
		check(rest)                                                                                 // no type
		check(slices.Concat([]byte(`{`), body, []byte(`,`), typ, []byte(`}`)))                      // the type last
		check(slices.Concat([]byte(`{"log_id":"9","data":`), raw, []byte(`}`)))                     // an envelope
		check(slices.Concat([]byte(`{"type":null,`), body, []byte(`}`)))                            // no string
		check(slices.Concat([]byte(`{"type":["s","fp"],`), body, []byte(`}`)))                      // several
		check(slices.Concat([]byte(`{"type":"s",`), body, []byte(`,"data.`), typ[1:], []byte(`}`))) // another one, which counts
	}
	if matched < 10_000 {
		t.Errorf("%d matches show nothing", matched)
	}
}

// BenchmarkEvaluate is what rules cost once an event has been read, without the
// windows: the values that they look at are in their slots, which is what other
// engines want of a decoded event. Text is lowered anew for each event, and what one
// rule has found out of an event is not known before.
func BenchmarkEvaluate(b *testing.B) {
	set := allRules()
	var events []expr.Decoded
	m := set.Matcher()
	for _, raw := range simulated(20_000) {
		events = append(events, m.Decode(raw))
	}
	all, matched := 0, 0
	b.ReportAllocs()
	for b.Loop() {
		for i := range events {
			matched += len(m.EvaluateDecoded(&events[i]))
		}
		all += len(events)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(all), "ns/event")
	b.ReportMetric(float64(all)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(matched)/float64(all), "matches/event")
}
