package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
)

// peakMemory is the largest resident memory of a process so far, in MB, without
// its children.
func peakMemory(b testing.TB, pid int) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip(err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb / 1000
		}
	}
	b.Skip("no VmHWM here")
	return 0
}

// cpuTime is what a process has used so far, in seconds.
func cpuTime(b *testing.B, pid int) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ") // the name before it may hold anything
	ticks := 0
	for _, field := range strings.Fields(rest)[11:13] { // utime and stime
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / 100
}

// reader is a connection to the engine of an environment, for as long as the
// benchmark runs.
func reader(b *testing.B, environ []string) driver.Conn {
	b.Helper()
	c, err := config.Load(environ, config.Need{})
	if err != nil {
		b.Fatal(err)
	}
	conn, end, err := engines.OpenReader(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(end)
	return conn
}

// poll asks f until it is true.
func poll(b *testing.B, every time.Duration, f func() bool) {
	b.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !f(); <-tick.C {
		if time.Now().After(deadline) {
			b.Fatal("it takes too long")
		}
	}
}

// BenchmarkBackfill pulls 200,000 events of a tenant without a limit: from its
// first call to the last row that a query sees.
func BenchmarkBackfill(b *testing.B) {
	const events = 200_000
	for b.Loop() {
		s := serve(b, auth0sim.Config{HistoryEvents: events})
		environ := settings(b, unprobed(s)...)
		p := start(b, environ, "run")
		poll(b, time.Millisecond, func() bool { return len(s.tenant.Stats().Calls) > 0 })
		first := time.Now()
		conn := reader(b, environ)
		poll(b, 50*time.Millisecond, func() bool {
			var n uint64
			err := conn.QueryRow(b.Context(), "SELECT count() FROM events_stored").Scan(&n)
			return err == nil && n >= events
		})
		spent := time.Since(first)
		b.ReportMetric(events/spent.Seconds(), "events/s")
		b.ReportMetric(peakMemory(b, p.cmd.Process.Pid), "peak-MB")
		b.ReportMetric(cpuTime(b, p.cmd.Process.Pid), "own-cpu-s")
		for _, child := range p.children() {
			b.ReportMetric(cpuTime(b, child), "engine-cpu-s")
		}
		if n := ask(b, environ, "SELECT uniqExact(log_id) >= "+strconv.Itoa(events)+" FROM events"); n[0] != "1" {
			b.Error("rows are missing")
		}
		b.ReportMetric(bytesPerRow(b, environ), "stored-bytes/event")
		p.kill()
	}
}

func bytesPerRow(b *testing.B, environ []string) float64 {
	b.Helper()
	got := ask(b, environ, "SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts WHERE active AND table = 'events_stored'")
	n, err := strconv.ParseFloat(got[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkLatency pulls a live tenant once a second: from the moment an event
// can be seen in the API until its row, and its alert on the terminal.
func BenchmarkLatency(b *testing.B) {
	const alerts = 60
	for b.Loop() {
		s := serve(b, auth0sim.Config{HistoryEvents: 1000, LiveRate: 100, MaxIngestLag: -1})
		environ := settings(b, append(unprobed(s), "TENANTWATCH_POLL=1s")...)
		p := start(b, environ, "run")
		p.waitFor("backfill done", 0)
		tick := time.NewTicker(331 * time.Millisecond) // no divisor of the poll
		visible := map[string]time.Time{}
		for i := range alerts {
			<-tick.C
			bucket := fmt.Sprintf("bucket-%d-", i)
			s.tenant.Inject(func(id string, now time.Time) []byte {
				return fmt.Appendf(nil, `{"log_id":%q,"date":%q,"type":"api_limit","details":{"limit":{"bucket":%q}}}`, id, now.UTC().Format("2006-01-02T15:04:05.000Z"), bucket)
			})
			visible[bucket] = time.Now()
		}
		tick.Stop()
		var delays []time.Duration
		for bucket, at := range visible {
			_, line := p.waitFor(bucket, 0)
			delays = append(delays, p.times[line-1].Sub(at))
		}
		slices.Sort(delays)
		b.ReportMetric(delays[len(delays)/2].Seconds(), "alert-p50-s")
		b.ReportMetric(delays[len(delays)*99/100].Seconds(), "alert-p99-s")
		const stored = "toUnixTimestamp(parseDateTime(substring(log_id, 4, 14), '%Y%m%d%H%i%S', 'UTC')) * 1000 + toUInt32(substring(log_id, 18, 3))"
		for name, q := range map[string]string{"row-p50-s": "0.5", "row-p99-s": "0.99"} {
			got := ask(b, environ, "SELECT quantile("+q+")(toUnixTimestamp64Milli(inserted_at) - ("+stored+")) / 1000 FROM events WHERE source = 'tail'")
			n, err := strconv.ParseFloat(got[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(n, name)
		}
		b.ReportMetric(peakMemory(b, p.cmd.Process.Pid), "peak-MB")
		p.kill()
	}
}

// BenchmarkRulesScan scans a file of 100,000 events, from the start of the command
// to its end.
func BenchmarkRulesScan(b *testing.B) {
	tenant := auth0sim.New(auth0sim.Config{HistoryEvents: 100_000, Attacks: auth0sim.DemoAttacks()})
	var lines []byte
	ids := tenant.IDs()
	for _, id := range ids {
		raw, _ := tenant.Event(id)
		lines = append(append(lines, raw...), '\n')
	}
	file := filepath.Join(b.TempDir(), "events.ndjson")
	if err := os.WriteFile(file, lines, 0o600); err != nil {
		b.Fatal(err)
	}
	var said strings.Builder
	for b.Loop() {
		if code := execute(b.Context(), []string{"rules", "scan", "--output", "json", file}, &app{stdout: io.Discard, stderr: &said}); code != exitFound {
			b.Fatalf("exit %d: %s", code, said.String())
		}
	}
	b.ReportMetric(float64(len(ids))*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
