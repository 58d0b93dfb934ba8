package alert

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestCrashInsideInsert kills the engine inside inserts of alerts: each is there, once.
func TestCrashInsideInsert(t *testing.T) {
	if testing.Short() {
		t.Skip("it is about processes: nothing for the race detector")
	}
	t.Parallel()
	conn, _, srv := chlocaltest.OpenServer(t)
	if err := conn.Exec(t.Context(), "SYSTEM STOP MERGES alerts_stored"); err != nil {
		t.Fatal(err)
	}
	n := New(conn, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	const rounds = 10
	chlocaltest.CrashInserts(t, srv, rounds, func(round int) error {
		a := firing(fmt.Sprintf("192.0.2.%d", round))
		return n.insert(t.Context(), &a)
	})
	var stored, different uint64
	if err := conn.QueryRow(t.Context(), "SELECT count(), uniqExact(fingerprint) FROM alert_transitions").Scan(&stored, &different); err != nil {
		t.Fatal(err)
	}
	if stored != rounds || different != rounds {
		t.Errorf("%d transitions of %d alerts, want %d of %[3]d", stored, different, rounds)
	}
}
