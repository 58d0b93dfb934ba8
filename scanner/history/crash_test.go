package history

import (
	"fmt"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestCrashInsideInsert kills the engine inside inserts that note how far rules have been
// run: each note that was acknowledged in the end is there.
func TestCrashInsideInsert(t *testing.T) {
	if testing.Short() {
		t.Skip("it is about processes: nothing for the race detector")
	}
	t.Parallel()
	conn, _, srv := chlocaltest.OpenServer(t)
	if err := conn.Exec(t.Context(), "SYSTEM STOP MERGES scans_stored"); err != nil {
		t.Fatal(err)
	}
	store := NewStore(conn)
	const rounds = 10
	to := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	chlocaltest.CrashInserts(t, srv, rounds, func(round int) error {
		return store.saveScanned(t.Context(), fmt.Sprint("rule ", round), to)
	})
	for round := range rounds {
		if at, err := store.scannedTo(t.Context(), fmt.Sprint("rule ", round)); err != nil || !at.Equal(to) {
			t.Errorf("rule %d: scanned to %v, %v; want %v", round, at, err, to)
		}
	}
}
