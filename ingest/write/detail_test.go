package write_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestDetailColumns compares the values that the writer computes with those that
// ClickHouse computes for other inserts, which are the defaults of the columns.
func TestDetailColumns(t *testing.T) {
	conn, dsn := chlocaltest.Open(t)
	opts, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	store := write.NewStore(opts)
	defer store.Close()

	details := []string{
		`{}`, `[]`, `"x"`, `1`, `{"request":null,"response":[],"limit":"x"}`,
		`{"request":{"method":"get","path":"/api/v2/users/auth0|5f"},"response":{"statusCode":200}}`,
		`{"request":{"method":null,"path":5},"response":{"statusCode":null}}`,
		`{"request":{"method":"a","method":"b","path":"\u00e4\/\"\\"}}`,
		`{"request":{"method":"a"},"request":{"method":"b","path":"c"}}`,
		`{"limit":{"bucket":"global-signup"}}`, `{"limit":{"bucket":["x"]}}`, `{"limit":{"a":{"bucket":"inner"}}}`,
		`{"\u0072equest":{"m\u0065thod":"escaped"}}`, `{"other":{"request":{"method":"deeper"}}}`,
	}
	for _, code := range []string{"0", "-1", "65535", "65536", "404.0", "404.5", "4e2", `"404"`, `"x"`, "true", "null", "[404]"} {
		details = append(details, `{"response":{"statusCode":`+code+`}}`)
	}
	tenant := auth0sim.New(auth0sim.Config{HistoryEvents: 5000})
	var events [][]byte
	for i, text := range details {
		events = append(events, fmt.Appendf(nil, `{"log_id":"odd%d","date":"2026-11-20T10:11:12.345Z","details":%s}`, i, text))
	}
	for _, id := range tenant.IDs() {
		raw, _ := tenant.Event(id)
		events = append(events, raw)
	}

	months := map[string]*write.Block{}
	for _, raw := range events {
		row, err := schema.ParseRow(raw)
		if err != nil {
			continue // a dead letter
		}
		month := row.Date.Format("200601")
		if months[month] == nil {
			months[month] = write.NewBlock()
		}
		months[month].Add(&schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: time.Now()}, &row)
	}
	for _, block := range months {
		if err := store.Insert(t.Context(), block); err != nil {
			t.Fatal(err)
		}
	}

	rows, err := conn.Query(t.Context(), `SELECT details, (status_code, request_method, request_path, limit_bucket)::Tuple(UInt16, String, String, String)::String AS ours,
		(least(JSONExtractUInt(details, 'response', 'statusCode'), 65535)::UInt16, JSONExtractString(details, 'request', 'method'),
		JSONExtractString(details, 'request', 'path'), JSONExtractString(details, 'limit', 'bucket'))::String AS theirs
		FROM events_stored WHERE ours != theirs`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text, ours, theirs string
		if err := rows.Scan(&text, &ours, &theirs); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s: got %s, want %s", text, ours, theirs)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	var calls, buckets uint64
	if err := conn.QueryRow(t.Context(), "SELECT countIf(status_code >= 400 AND request_path != ''), countIf(limit_bucket != '') FROM events_stored").Scan(&calls, &buckets); err != nil {
		t.Fatal(err)
	}
	if calls == 0 || buckets == 0 {
		t.Errorf("%d failed calls and %d limits among the events", calls, buckets)
	}
}
