package audit_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// start is when the tests' audits run, in their own time.
var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// idAt is a log_id of an event that was stored at t, the n-th of its moment.
func idAt(t time.Time, n int) string {
	t = t.UTC()
	return fmt.Sprintf("900%s%06d%014d%019d", t.Format("20060102150405"), t.Nanosecond()/1000, 0, n)
}

// TestArchive holds the archive against the real engine.
func TestArchive(t *testing.T) {
	conn, dsn := chlocaltest.Open(t)
	var dead []schema.Record
	archive := audit.NewArchive(conn, func(context.Context) error { return nil }, func(_ context.Context, yield func(schema.Record) error) error {
		for _, r := range dead {
			if err := yield(r); err != nil {
				return err
			}
		}
		return nil
	})
	hour := start.Truncate(time.Hour)

	t.Run("stored", func(t *testing.T) {
		opts, err := schema.Options(dsn, nil)
		if err != nil {
			t.Fatal(err)
		}
		store := write.NewStore(opts)
		defer store.Close()
		tenants := []string{"acme", `o'brien \ "co" ? $1 @x {a:b}`}
		var events []schema.Event
		add := func(id, date string) {
			e := schema.Event{Raw: []byte(fmt.Sprintf(`{"log_id":%q,"date":%q,"type":"s"}`, id, date))}
			if err := e.Identify(); err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
		for i := range 50 {
			at := hour.Add(time.Duration(i) * 10 * time.Second)
			date := at.Add(-time.Duration(i) * time.Second)
			switch i % 10 {
			case 7:
				date = at.Add(-30 * 24 * time.Hour) // far
			case 8:
				date = at.Add(59 * time.Minute)
			case 9:
				date = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
			}
			add(idAt(at, i), date.Format("2006-01-02T15:04:05.000Z"))
		}
		for _, id := range []string{"x", "it's", `back\slash`, `'); DROP TABLE events_stored; --`, "?", "a ? b", "$1", "@name", "{x:String}", "%s", "é\t\n", "?'\\?"} {
			add(id, "2026-11-20T10:00:00.000Z")
		}
		for n, tenant := range tenants {
			want, months := map[string]bool{}, map[string]*write.Block{}
			for i, e := range events {
				if i%2 != n {
					continue
				}
				row, err := schema.ParseRow(e.Raw)
				if err != nil {
					t.Fatal(err)
				}
				want[e.LogID] = true
				m := row.Date.Format("200601")
				if months[m] == nil {
					months[m] = write.NewBlock()
				}
				months[m].Add(&schema.Event{Tenant: tenant, Source: schema.SourceTail, FetchedAt: start}, &row)
			}
			for _, block := range months {
				if err := store.Insert(t.Context(), block); err != nil {
					t.Fatal(err)
				}
			}
			got, err := archive.Stored(t.Context(), tenant, events)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: -want +got\n%.1500s", tenant, diff)
			}
			// Each one alone.
			for _, e := range events {
				got, err := archive.Stored(t.Context(), tenant, []schema.Event{e})
				if err != nil || got[e.LogID] != want[e.LogID] || len(got) > 1 {
					t.Errorf("%s: %q is stored: %v, %v, want %v", tenant, e.LogID, got, err, want[e.LogID])
				}
			}
		}
		if got, err := archive.Stored(t.Context(), "acme", nil); err != nil || len(got) != 0 {
			t.Errorf("of nothing: %v, %v", got, err)
		}
		if got, err := archive.Stored(t.Context(), "nobody", events); err != nil || len(got) != 0 {
			t.Errorf("of another tenant: %v, %v", got, err)
		}
		many := make([]schema.Event, 5000)
		for i := range many {
			many[i] = schema.Event{LogID: fmt.Sprintf("other-kind-'%d'", i), Date: start}
		}
		if got, err := archive.Stored(t.Context(), "acme", append(many, events...)); err != nil || len(got) == 0 {
			t.Errorf("of many: %d, %v", len(got), err)
		}
	})

	t.Run("dead", func(t *testing.T) {
		for _, tenant := range []string{"acme", "other"} {
			d := schema.NewDeadLetter(&schema.Event{Tenant: tenant, Raw: []byte(`{"of":"` + tenant + `"}`)}, schema.ErrNoID)
			dead = append(dead, d.Record(), d.RetriedRecord())
		}
		got, err := archive.DeadLetters(t.Context(), "acme")
		want := schema.NewDeadLetter(&schema.Event{Raw: []byte(`{"of":"acme"}`)}, schema.ErrNoID).ID
		if ids := slices.Collect(maps.Keys(got)); err != nil || !slices.Equal(ids, []string{want}) {
			t.Errorf("got %v, %v, want %s", ids, err, want)
		}
	})

	t.Run("note", func(t *testing.T) {
		row := func(h int, expected, stored, dead, missing, healed uint64, minute int) schema.Coverage {
			at := hour.Add(time.Duration(h) * time.Hour)
			return schema.Coverage{Tenant: "o'ne", Hour: at, From: at, Until: at.Add(time.Hour), Expected: expected, Stored: stored,
				Dead: dead, Missing: missing, Healed: healed, CheckedAt: start.Add(time.Duration(minute) * time.Minute)}
		}
		for _, step := range []struct {
			name string
			note []schema.Coverage
			want []schema.Coverage
		}{
			{"the first", []schema.Coverage{row(0, 100, 90, 2, 8, 0, 0), row(1, 10, 10, 0, 0, 5, 0)},
				[]schema.Coverage{row(0, 100, 90, 2, 8, 0, 0), row(1, 10, 10, 0, 0, 5, 0)}},
			{"the same again", []schema.Coverage{row(0, 100, 90, 2, 8, 0, 0), row(1, 10, 10, 0, 0, 5, 0)},
				[]schema.Coverage{row(0, 100, 90, 2, 8, 0, 0), row(1, 10, 10, 0, 0, 5, 0)}},
			{"healed", []schema.Coverage{row(0, 101, 99, 2, 0, 9, 1)}, []schema.Coverage{row(0, 101, 99, 2, 0, 9, 1), row(1, 10, 10, 0, 0, 5, 0)}},
			{"healed adds up", []schema.Coverage{row(0, 101, 99, 2, 0, 3, 2), row(1, 10, 10, 0, 0, 0, 2)},
				[]schema.Coverage{row(0, 101, 99, 2, 0, 12, 2), row(1, 10, 10, 0, 0, 5, 2)}},
			{"the hour shrank", []schema.Coverage{row(0, 40, 39, 0, 1, 1, 3)}, []schema.Coverage{row(0, 101, 98, 2, 1, 13, 3), row(1, 10, 10, 0, 0, 5, 2)}},
			{"an hour without events, and one more", []schema.Coverage{row(2, 0, 0, 0, 0, 0, 4), row(3, 7, 7, 0, 0, 0, 4)},
				[]schema.Coverage{row(0, 101, 98, 2, 1, 13, 3), row(1, 10, 10, 0, 0, 5, 2), row(2, 0, 0, 0, 0, 0, 4), row(3, 7, 7, 0, 0, 0, 4)}},
		} {
			if err := archive.SaveCoverage(t.Context(), step.note); err != nil {
				t.Fatal(err)
			}
			got, err := audit.ReadCoverage(t.Context(), conn, "o'ne", hour, hour.Add(24*time.Hour))
			if diff := cmp.Diff(step.want, got); err != nil || diff != "" {
				t.Errorf("%s: %v, -want +got\n%s", step.name, err, diff)
			}
		}
		got, err := audit.ReadCoverage(t.Context(), conn, "o'ne", hour.Add(time.Hour), hour.Add(2*time.Hour))
		if err != nil || len(got) != 1 || got[0].Expected != 10 {
			t.Errorf("of one hour: %+v, %v", got, err)
		}
		for _, tenant := range []string{"other", ""} {
			if got, err := audit.ReadCoverage(t.Context(), conn, tenant, hour, hour.Add(24*time.Hour)); err != nil || len(got) != 0 {
				t.Errorf("of %q: %+v, %v", tenant, got, err)
			}
		}
		var n uint64
		if err := conn.QueryRow(t.Context(), "SELECT count() FROM coverage WHERE expected != stored + dead_letters + missing").Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows do not add up, %v", n, err)
		}
	})

	t.Run("gaps", func(t *testing.T) {
		raw := `{"log_id":"tenantwatch_gap-acme-1","date":"2026-11-20T10:00:00.000Z","type":"tenantwatch_gap","description":"x","tenant_name":"acme",` +
			`"details":{"from":"2026-11-18T10:00:00Z","until":"2026-11-19T10:30:00.5Z","seconds":88200.5}}`
		row, err := schema.ParseRow([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		opts, err := schema.Options(dsn, nil)
		if err != nil {
			t.Fatal(err)
		}
		store := write.NewStore(opts)
		defer store.Close()
		block := write.NewBlock()
		block.Add(&schema.Event{Tenant: "acme", Source: schema.SourceSelf, FetchedAt: start}, &row)
		if err := store.Insert(t.Context(), block); err != nil {
			t.Fatal(err)
		}
		var tenant string
		var found, since, until time.Time
		var seconds float64
		if err := conn.QueryRow(t.Context(), "SELECT tenant, found_at, since, until, seconds FROM gaps").Scan(&tenant, &found, &since, &until, &seconds); err != nil {
			t.Fatal(err)
		}
		if tenant != "acme" || !found.Equal(start) || !since.Equal(start.Add(-48*time.Hour)) || !until.Equal(start.Add(-24*time.Hour+30*time.Minute+500*time.Millisecond)) || seconds != 88200.5 {
			t.Errorf("%s, %s: %s to %s, %v s", tenant, found, since, until, seconds)
		}
	})
}
