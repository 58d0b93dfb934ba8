package write_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestFirstDateWins lets events come again with their date in another precision, side
// by side, later and after a restart: each is one row, under its first date, and tells
// the date that came last.
func TestFirstDateWins(t *testing.T) {
	conn, dsn := chlocaltest.Open(t)
	opts, err := schema.Options(dsn, nil)
	if err != nil {
		t.Fatal(err)
	}
	store := write.NewStore(opts)
	defer store.Close()

	day := time.Now().UTC().Add(-24 * time.Hour).Format("2006-01-02")
	orders := [][]string{
		{"10:00:00.123Z", "10:00:00Z"},
		{"10:00:00Z", "10:00:00.123Z"},
		{"10:00:00Z", "10:00:00.000Z"},
		{"10:00:00.1234567Z", "10:00:00.123Z", "10:00:00.12Z", "10:00:00Z"},
		{"10:00:00.123Z", "12:00:00.1239+02:00", "10:00:00Z", "10:00:00.123Z"},
		{"23:59:59.9Z", "23:59:59.999Z"},
	}
	first, last := map[string]string{}, map[string]string{}
	// rounds are what is written by one run of the writer each.
	var rounds [][]schema.Record
	add := func(round int, id, clock string) {
		for len(rounds) <= round {
			rounds = append(rounds, nil)
		}
		text := day + "T" + clock
		e := schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: time.Now(), Raw: fmt.Appendf(nil, `{"log_id":%q,"date":%q,"type":"s","x":1}`, id, text)}
		r := e.Record()
		r.Offset = int64(1000*round + len(rounds[round]))
		rounds[round] = append(rounds[round], r)
		if first[id] == "" {
			first[id] = text
		}
		last[id] = text
	}
	for n, clocks := range orders {
		for _, apart := range []bool{false, true} {
			id := idAt(time.Now().Add(-24*time.Hour), 10*n)
			if apart {
				id = idAt(time.Now().Add(-24*time.Hour), 10*n+1)
			}
			for round, clock := range clocks {
				if !apart {
					round = 0
				}
				add(round, id, clock)
			}
		}
	}

	for round, records := range rounds {
		w := write.NewWriter(store, &fakeTopic{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		w.KeepFirstDates(write.NewStoredDates(conn))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		p := &fakePartition{records: records, onCommit: func(next int64) {
			if next == int64(1000*round+len(records)) {
				cancel()
			}
		}}
		if err := w.Consume(ctx, p); err != nil {
			t.Fatal(err)
		}
		cancel()
	}

	rows, err := conn.Query(t.Context(), "SELECT log_id, date, raw FROM events")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := map[string]bool{}
	for rows.Next() {
		var id, raw string
		var date time.Time
		if err := rows.Scan(&id, &date, &raw); err != nil {
			t.Fatal(err)
		}
		want, err := time.Parse(time.RFC3339Nano, first[id])
		if err != nil {
			t.Fatal(err)
		}
		if seen[id] || !date.Equal(want.Truncate(time.Millisecond)) || !strings.Contains(raw, `"date":"`+last[id]+`"`) || strings.Count(raw, `"date"`) != 1 || !strings.Contains(raw, `"x":1`) {
			t.Errorf("%s is there twice: %v, date %s, %s; it came first with %s, last with %s", id, seen[id], date, raw, first[id], last[id])
		}
		seen[id] = true
	}
	if err := rows.Err(); err != nil || len(seen) != len(first) {
		t.Errorf("%d events of %d, %v", len(seen), len(first), err)
	}

	// An audit that gets the last date finds each all the same.
	var events []schema.Event
	for id, date := range last {
		e := schema.Event{Raw: fmt.Appendf(nil, `{"log_id":%q,"date":%q}`, id, date)}
		if err := e.Identify(); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	stored, err := audit.NewArchive(conn, nil, nil).Stored(t.Context(), "acme", events)
	if err != nil || len(stored) != len(last) {
		t.Errorf("an audit finds %d of %d, %v", len(stored), len(last), err)
	}
}
