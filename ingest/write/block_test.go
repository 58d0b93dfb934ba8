package write_test

import (
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
)

// BenchmarkRows is an event on its way from a record of the events topic into the
// columns of an insert, on one core.
func BenchmarkRows(b *testing.B) {
	tenant := auth0sim.New(auth0sim.Config{HistoryEvents: 10_000, Shapes: auth0sim.ShapesClean})
	var records []schema.Record
	bytes := 0
	for _, id := range tenant.IDs() {
		raw, _ := tenant.Event(id)
		e := schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: time.Now(), Raw: raw}
		if err := e.Identify(); err != nil {
			b.Fatal(err)
		}
		records = append(records, e.Record())
		bytes += len(raw)
	}
	block := write.NewBlock()
	b.SetBytes(int64(bytes / len(records)))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n == len(records) {
			block.Reset()
			n = 0
		}
		e := schema.EventOf(&records[n])
		row, err := schema.ParseRow(e.Raw)
		if err != nil {
			b.Fatal(err)
		}
		block.Add(&e, &row)
		n++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
