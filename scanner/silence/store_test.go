package silence_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/scanner/silence"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestSeen asks ClickHouse what it knows of the tenants' last days.
func TestSeen(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	now := time.Now().UTC().Truncate(time.Second)
	for i, e := range []struct {
		tenant, typ, source string
		ago                 time.Duration
	}{
		{"acme", "s", "tail", 8 * 24 * time.Hour},
		{"acme", "s", "backfill", 48 * time.Hour},
		{"acme", "fp", "tail", time.Hour},
		{"acme", "s", "overlap", 24 * time.Hour},
		{"acme", "tenantwatch_probe", "probe", time.Minute},
		{"acme", "tenantwatch_health", "self", time.Second},
		{"quiet", "tenantwatch_health", "self", time.Second},
		{"gone", "s", "tail", 9 * 24 * time.Hour},
	} {
		if err := conn.Exec(t.Context(), "INSERT INTO events_stored (tenant, date, type, log_id, source) VALUES (?, ?, ?, ?, ?)", e.tenant, now.Add(-e.ago), e.typ, string(rune('a'+i)), e.source); err != nil {
			t.Fatal(err)
		}
	}
	got, err := silence.NewStore(conn).Seen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]silence.Seen{
		"acme":  {First: now.Add(-48 * time.Hour), Newest: now.Add(-time.Hour), SameHour: 2, Probe: now.Add(-time.Minute)},
		"quiet": {},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// A date an hour from now is believed where the tenant's clock is as far ahead.
	if err := conn.Exec(t.Context(), "INSERT INTO events_stored (tenant, date, type, log_id, source) VALUES ('acme', ?, 's', 'z', 'tail')", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for ahead, newest := range map[time.Duration]time.Time{0: now.Add(-time.Hour), time.Hour: now.Add(time.Hour)} {
		if got, err := silence.NewStore(conn).Seen(t.Context(), ahead); err != nil || !got["acme"].Newest.Equal(newest) {
			t.Errorf("%s ahead: %v, %v", ahead, got["acme"].Newest, err)
		}
	}
}
