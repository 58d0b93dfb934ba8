package main

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/kafka/kafkatest"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// mostMemory is what the process may have resident, in MB.
const mostMemory = 150

// TestOutages has 108,000 events arise while Kafka, and then ClickHouse, is away: an
// hour of 30 a second. The process stays small, and in the end nothing is missing.
func TestOutages(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector needs memory of its own")
	}
	t.Parallel()
	brokers := kafkatest.Start(t, kafkatest.Config{Brokers: 1})
	dir := t.TempDir()
	engine := chlocaltest.Start(t, dir)
	const outage = 50 * time.Minute
	var ahead atomic.Int64 // how far the tenant's clock was put forward
	var clock stoppable
	s := serve(t, auth0sim.Config{Now: func() time.Time { return clock.now().Add(time.Duration(ahead.Load())) }, HistoryEvents: 1000, LiveRate: 36})
	environ := settings(t, append(unprobed(s), "KAFKA_BROKERS="+strings.Join(brokers.Addrs(), ","), "CLICKHOUSE_DSN="+engine.Access.DSN(chlocal.Owner, "kept"))...)
	p := start(t, environ, "run")
	_, line := p.waitFor("backfill done", 0)
	web, _ := p.waitFor(`^web: +(http://\S+)`, 0)
	later := func() time.Time {
		ahead.Add(int64(outage))
		return s.tenant.Config().Now()
	}
	pulled := func(until time.Time) {
		waitUntil(t, "all is pulled", func() bool {
			return metric(t, web[1], "tenantwatch_pull_position_timestamp_seconds") > float64(until.Add(-10*time.Second).Unix())
		})
	}

	brokers.Kill(0)
	_, line = p.waitFor("join consumer group failed.*group=tenantwatch.puller", line)
	until := later()
	t.Logf("%.0f MB with Kafka away", peakMemory(t, p.cmd.Process.Pid))
	brokers.Restart(0)
	pulled(until)

	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	_, _ = p.waitFor("insert failed; retrying", line)
	pulled(later())
	t.Logf("%.0f MB with ClickHouse away", peakMemory(t, p.cmd.Process.Pid))
	chlocaltest.Start(t, dir)
	clock.stop()
	compare(t, environ, s.tenant)
	mb := peakMemory(t, p.cmd.Process.Pid)
	t.Logf("%.0f MB in the end", mb)
	if mb > mostMemory {
		t.Errorf("%.0f MB were resident, at most %d are allowed", mb, mostMemory)
	}
}

// metric is what a process tells under a name, for whatever labels come first; 0
// while it tells nothing.
func metric(t *testing.T, url, name string) float64 {
	t.Helper()
	res, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			n, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}
