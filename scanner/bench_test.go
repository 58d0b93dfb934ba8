package scanner_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/schema"
)

// catalogDir has Auth0's detection catalog, unchanged, beside the repository.
var catalogDir = filepath.Join("..", "..", "shared", "data", "auth0-detections")

// allRules are the built-in rules and, where it is there, Auth0's catalog with
// every variable set.
func allRules(tb testing.TB) *rules.Set {
	tb.Helper()
	if _, err := os.Stat(catalogDir); err != nil {
		tb.Logf("without Auth0's catalog: %v", err)
		set, _ := rules.Load(nil, builtin.FS())
		return set
	}
	vars := rules.Vars{
		"global_client_id": {"dashboard"}, "api_explorer_client_id": {"explorer"}, "your-tenant-url": {"t.auth0.com"},
		"your-tenant-domain": {"t.eu.auth0.com"}, "trusted-client_id-1": {"trusted1"}, "trusted-client_id-2": {"trusted2"},
	}
	set, _ := rules.Load(vars, builtin.FS(), os.DirFS(catalogDir))
	return set
}

// simulated is an hour of a simulated tenant, 20,000 events of its background and
// each of its attacks twice, as they lie in the events topic.
func simulated(tb testing.TB) []schema.Record {
	tb.Helper()
	cfg := auth0sim.Config{Seed: 7, Anchor: time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC), HistoryEvents: 20_000, HistorySpan: time.Hour}
	cfg.Now = func() time.Time { return cfg.Anchor }
	for i, kind := range []auth0sim.AttackKind{auth0sim.AttackRateLimit, auth0sim.AttackAuthRateLimit, auth0sim.AttackStuffing,
		auth0sim.AttackBruteForce, auth0sim.AttackDistributed, auth0sim.AttackPushBombing, auth0sim.AttackManagementErrors,
		auth0sim.AttackSecretGuessing, auth0sim.AttackLeakedPasswords, auth0sim.AttackSignups, auth0sim.AttackTokenReuse} {
		cfg.Attacks = append(cfg.Attacks, auth0sim.Attack{Kind: kind, At: -55*time.Minute + time.Duration(i)*time.Minute, Every: 25 * time.Minute, Times: 2})
	}
	tenant := auth0sim.New(cfg)
	var list []schema.Record
	for i, id := range tenant.IDs() {
		raw, _ := tenant.Event(id)
		stored, _ := schema.IDTime(id)
		e := schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: stored.Add(time.Second), Raw: raw}
		if err := e.Identify(); err != nil {
			tb.Fatal(err)
		}
		r := e.Record()
		r.Offset, r.Time = int64(i), e.FetchedAt
		list = append(list, r)
	}
	return list
}

// BenchmarkEngine is what the events of a tenant cost, one after the other on one
// core: match, to find the rules that an event matches; observe, that and the
// windows; record, that and what is read of the record, which is all that the
// stream does with it. Each pass over the events is a new engine's.
func BenchmarkEngine(b *testing.B) {
	set, records := allRules(b), simulated(b)
	events := make([]schema.Event, len(records))
	bytes := 0
	for i := range records {
		events[i] = schema.EventOf(&records[i])
		bytes += len(events[i].Raw)
	}
	perEvent := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
		b.ReportMetric(float64(b.N*len(events))/b.Elapsed().Seconds(), "events/s")
		b.ReportMetric(float64(bytes)/float64(len(events)), "bytes/event")
	}
	b.Run("match", func(b *testing.B) {
		m := set.Matcher()
		for i := range events { // what a matcher makes for a type at its first event
			m.Match(events[i].Raw)
		}
		b.ReportAllocs()
		for b.Loop() {
			for i := range events {
				m.Match(events[i].Raw)
			}
		}
		perEvent(b)
	})
	b.Run("observe", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			engine := scanner.NewEngine(set, scanner.Config{})
			for i := range events {
				engine.Observe(&events[i])
			}
		}
		perEvent(b)
	})
	b.Run("record", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			engine := scanner.NewEngine(set, scanner.Config{})
			for i := range records {
				e := schema.EventOf(&records[i])
				if !engine.TooOld(&e) && !e.Date.IsZero() {
					engine.Observe(&e)
				}
			}
		}
		perEvent(b)
	})
	b.Run("identify", func(b *testing.B) { // of records that do not tell id and date
		b.ReportAllocs()
		for b.Loop() {
			engine := scanner.NewEngine(set, scanner.Config{})
			for i := range records {
				e := schema.EventOf(&records[i])
				if err := e.Identify(); err != nil {
					b.Fatal(err)
				}
				if !engine.TooOld(&e) {
					engine.Observe(&e)
				}
			}
		}
		perEvent(b)
	})
}
