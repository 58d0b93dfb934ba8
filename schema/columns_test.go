package schema_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

func TestMain(m *testing.M) {
	chlocal.Host()
	os.Exit(m.Run())
}

// TestColumns compares the list of columns with the tables that the migrations make: each
// is in the table, with its type, and in the events that the view rebuilds.
func TestColumns(t *testing.T) {
	conn, _ := chlocaltest.Open(t)
	rows, err := conn.Query(t.Context(), "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'events_stored'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	types := map[string]string{}
	for rows.Next() {
		var name, typ string
		if err := rows.Scan(&name, &typ); err != nil {
			t.Fatal(err)
		}
		types[name] = typ
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}

	event := map[string]string{}
	for i, column := range schema.Columns {
		want := "String"
		switch {
		case column.Name == "date":
			want = "DateTime64(3, 'UTC')"
		case column.Few:
			want = "LowCardinality(String)"
		}
		if got := types[column.Name]; got != want && column.Name != "_id" {
			t.Errorf("column %s: got %q, want %q", column.Name, got, want)
		}
		delete(types, column.Name)
		if got := schema.ColumnIndex(column.Name); got != i {
			t.Errorf("%s is at %d, want %d", column.Name, got, i)
		}
		event[column.Name] = "value of " + column.Name
	}
	others := []string{"tenant", "members", "details", "rest", "source", "fetched_at", "inserted_at",
		"status_code", "request_method", "request_path", "limit_bucket"}
	for name := range types {
		if !slices.Contains(others, name) {
			t.Errorf("the list of columns lacks %s", name)
		}
	}
	for _, name := range append(others, "", "details", "unknown", "IP") {
		if got := schema.ColumnIndex(name); got != -1 {
			t.Errorf("%q is at %d", name, got)
		}
	}

	event["log_id"], event["date"] = someID, "2026-11-20T10:11:12.345Z"
	event["_id"] = event["log_id"]
	raw, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	row, err := schema.ParseRow(raw)
	if err != nil {
		t.Fatal(err)
	}
	if row.Members != 1<<len(schema.Columns)-1 || row.Rest != "" {
		t.Errorf("members %b, rest %s", row.Members, row.Rest)
	}

	names := append([]string{"tenant", "date", "type", "log_id", "members", "fetched_at"}, schema.TextColumns()...)
	values := []any{"acme", row.Date, row.Type, row.LogID, row.Members, time.Now()}
	for _, text := range row.Texts[schema.FirstText:] {
		values = append(values, text)
	}
	batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO events_stored ("+strings.Join(names, ", ")+")")
	if err != nil {
		t.Fatal(err)
	}
	if err := batch.Append(values...); err != nil {
		t.Fatal(err)
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}

	var rebuilt string
	if err := conn.QueryRow(t.Context(), "SELECT raw FROM events").Scan(&rebuilt); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := json.Unmarshal([]byte(rebuilt), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(event, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, column := range schema.Columns {
		var text string
		if err := conn.QueryRow(t.Context(), fmt.Sprintf("SELECT %s FROM events", column.SQL())).Scan(&text); err != nil || text != event[column.Name] {
			t.Errorf("%s: got %q, %v, want %q", column.Name, text, err, event[column.Name])
		}
	}
}
