package write_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/audit"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// crashRounds is how often an engine is killed inside an insert.
const crashRounds = 10

// blockOf is n events of a round.
func blockOf(t *testing.T, round, n int) *write.Block {
	t.Helper()
	block := write.NewBlock()
	for i := range n {
		raw := fmt.Sprintf(`{"log_id":"%s","date":"2026-11-20T10:11:12.345Z","type":"s"}`, id(round*1000+i))
		row, err := schema.ParseRow([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		block.Add(&schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: start, Raw: []byte(raw)}, &row)
	}
	return block
}

// TestCrashInsideInsert kills the engine inside inserts of events and of coverage: every
// row that was acknowledged in the end is there, once.
func TestCrashInsideInsert(t *testing.T) {
	if testing.Short() {
		t.Skip("it is about processes: nothing for the race detector")
	}
	t.Parallel()
	conn, dsn, srv := chlocaltest.OpenServer(t)
	for _, table := range []string{"events_stored", "coverage_stored"} {
		if err := conn.Exec(t.Context(), "SYSTEM STOP MERGES "+table); err != nil {
			t.Fatal(err)
		}
	}
	opts, err := schema.Options(dsn, nil)
	if err != nil {
		t.Fatal(err)
	}
	store := write.NewStore(opts)
	defer store.Close()

	const rows = 50
	chlocaltest.CrashInserts(t, srv, crashRounds, func(round int) error { return store.Insert(t.Context(), blockOf(t, round, rows)) })
	var stored, different uint64
	if err := conn.QueryRow(t.Context(), "SELECT count(), uniqExact(log_id) FROM events").Scan(&stored, &different); err != nil {
		t.Fatal(err)
	}
	if want := uint64(rows * crashRounds); stored != want || different != want {
		t.Errorf("%d events, %d different ones; want %d", stored, different, want)
	}

	archive := audit.NewArchive(conn, nil, nil)
	hour := start.Truncate(time.Hour)
	chlocaltest.CrashInserts(t, srv, crashRounds, func(round int) error {
		return archive.SaveCoverage(t.Context(), []schema.Coverage{{Tenant: "acme", Hour: hour.Add(time.Duration(round) * time.Hour), Expected: 7, Stored: 7,
			From: hour, Until: hour.Add(time.Hour), CheckedAt: start}})
	})
	list, err := audit.ReadCoverage(t.Context(), conn, "acme", hour, hour.Add(crashRounds*time.Hour))
	if err != nil || len(list) != crashRounds {
		t.Errorf("%d hours of coverage, %v; want %d", len(list), err, crashRounds)
	}
}

// TestPowerLoss shows that an insert is acknowledged once each file of its part and
// the part's folder are on disk.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	conn, dsn, srv := chlocaltest.OpenServer(t)
	opts, err := schema.Options(dsn, nil)
	if err != nil {
		t.Fatal(err)
	}
	store := write.NewStore(opts)
	defer store.Close()

	end := chlocaltest.Strace(t, srv, "an acknowledged insert is on disk", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs")
	if err := store.Insert(t.Context(), blockOf(t, 0, 1000)); err != nil {
		t.Fatal(err)
	}
	acknowledged := time.Now()
	trace := end()

	var part string
	if err := conn.QueryRow(t.Context(), "SELECT path FROM system.parts WHERE table = 'events_stored' AND active").Scan(&part); err != nil {
		t.Fatal(err)
	}
	synced := syncedBefore(t, trace, acknowledged)
	files, err := os.ReadDir(part)
	if err != nil || len(files) < 3 {
		t.Fatalf("files of the part: %v, %v", files, err)
	}
	for _, file := range files {
		if !synced[file.Name()] {
			t.Errorf("%s was not on disk when the insert was acknowledged", file.Name())
		}
	}
	folder := false
	for name := range synced {
		folder = folder || strings.HasPrefix(name, "tmp_insert_") || name == filepath.Base(filepath.Clean(part))
	}
	if !folder {
		t.Errorf("the part's folder was not on disk; synced were %v", synced)
	}

	var unsafe []string
	if err := conn.QueryRow(t.Context(), `SELECT groupArray(name) FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'
		AND NOT (engine_full LIKE '%fsync_after_insert = 1%' AND engine_full LIKE '%fsync_part_directory = 1%'
			AND (engine_full LIKE '%non_replicated_deduplication_window = 0%' OR engine_full NOT LIKE '%deduplication%'))`).Scan(&unsafe); err != nil {
		t.Fatal(err)
	}
	if len(unsafe) > 0 {
		t.Errorf("tables without fsync, or with deduplication by token: %v", unsafe)
	}
}

// syncedBefore are the names of the files and folders that were on disk by a time.
func syncedBefore(t *testing.T, trace string, by time.Time) map[string]bool {
	t.Helper()
	synced := map[string]bool{}
	for line := range strings.Lines(trace) {
		// 1234 1764000000.123456 fsync(45</path/data.bin>) = 0
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		seconds, err := strconv.ParseFloat(fields[1], 64)
		if err != nil || seconds > float64(by.UnixMicro())/1e6 {
			continue
		}
		_, rest, _ := strings.Cut(line, "<")
		path, _, found := strings.Cut(rest, ">")
		if found && strings.Contains(line, "sync") {
			synced[filepath.Base(path)] = true
		}
	}
	return synced
}
