package schema_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/schema"
)

const someID = "90020231110110819308230000000000000001223372060221940944"

func TestParseRowRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, raw string
		want      error
	}{
		{"array", `[1]`, schema.ErrNotObject},
		{"text", `"x"`, schema.ErrNotObject},
		{"number", `12`, schema.ErrNotObject},
		{"null", `null`, schema.ErrNotObject},
		{"no id", `{"date":"2026-11-20T10:11:12.345Z"}`, schema.ErrNoID},
		{"id is null", `{"log_id":null}`, schema.ErrNoID},
		{"id is empty", `{"log_id":"","_id":""}`, schema.ErrNoID},
		{"id is half a character", `{"log_id":"\ud800"}`, schema.ErrNoID},
		{"no time", `{"log_id":"x"}`, schema.ErrNoDate},
		{"no time that can be stored", `{"log_id":"x","date":"1066-10-14T09:00:00.000Z"}`, schema.ErrNoDate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := schema.ParseRow([]byte(tt.raw)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			e := schema.Event{Raw: []byte(tt.raw)}
			if err := e.Identify(); !errors.Is(err, tt.want) {
				t.Errorf("Identify: got %v, want %v", err, tt.want)
			}
		})
	}
	for _, raw := range []string{``, `{`, `{"log_id":"x"`, `{"log_id":"x"} {}`, `<html>`, `{"a":}`} {
		if _, err := schema.ParseRow([]byte(raw)); err == nil || !strings.HasPrefix(err.Error(), "not JSON: ") {
			t.Errorf("%q: got %v, want not JSON", raw, err)
		}
	}
}

func TestParseRow(t *testing.T) {
	raw := `{"_id":"` + someID + `","log_id":"` + someID + `","date":"2023-11-10T11:08:19.262Z","type":"sapi","ip":"192.0.2.1","user_id":null,"isMobile":false,"details":{"a": 1}}`
	got, err := schema.ParseRow([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	want := schema.Row{LogID: someID, Type: "sapi", Date: time.Date(2023, 11, 10, 11, 8, 19, 262e6, time.UTC),
		Details: `{"a": 1}`, Rest: `{"user_id":null,"isMobile":false}`, Members: 0b1111 | 1<<11}
	want.Texts[11] = "192.0.2.1"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestIDTime(t *testing.T) {
	for id, want := range map[string]string{
		someID: "2023-11-10T11:08:19.308Z",
		"90020200113151943625000993024408641221974042823186448498":        "2020-01-13T15:19:43.625Z",
		schema.SyntheticID(time.Date(2026, 1, 2, 3, 4, 5, 6e8, time.UTC)): "2026-01-02T03:04:05.000Z",
		"":    "",
		"900": "",
		"90020201332151943625000993024408641221974042823186448498": "",
		"80020200113151943625000993024408641221974042823186448498": "",
	} {
		got := ""
		if at, ok := schema.IDTime(id); ok {
			got = at.Format("2006-01-02T15:04:05.000Z")
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
}

func TestEventRecord(t *testing.T) {
	e := schema.Event{Tenant: "acme", Source: schema.SourceOverlap, FetchedAt: time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC), Raw: []byte(`{"x":1}`)}
	r := e.Record()
	if diff := cmp.Diff(e, schema.EventOf(&r)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	d := schema.NewDeadLetter(&e, schema.ErrNoID)
	r = d.Record()
	if diff := cmp.Diff(d, schema.DeadLetterOf(&r)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestParseRowColumns shows that every member of Columns goes to its own.
func TestParseRowColumns(t *testing.T) {
	for i, name := range schema.TextColumns() {
		row, err := schema.ParseRow([]byte(`{"log_id":"` + someID + `","` + name + `":"v"}`))
		if err != nil {
			t.Fatal(err)
		}
		column := schema.FirstText + i
		if row.Texts[column] != "v" || row.Members>>column != 1 || row.Rest != "" {
			t.Errorf("%s: %+v", name, row)
		}
	}
}

func FuzzParseRow(f *testing.F) {
	f.Add([]byte(`{"log_id":"` + someID + `","type":"s","details":{"a":1},"ip":"x","ip":"y"}`))
	f.Add([]byte(`{"_id":"` + someID + `","scope":["a","b"],"date":{"x":1}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		row, err := schema.ParseRow(raw)
		e := schema.Event{Raw: raw}
		if again := e.Identify(); (again == nil) != (err == nil) {
			t.Fatalf("ParseRow: %v, Identify: %v", err, again)
		}
		if err != nil {
			return
		}
		if row.LogID != e.LogID || row.Type != e.Type || !row.Date.Equal(e.Date) {
			t.Errorf("ParseRow and Identify do not agree on %q", raw)
		}
		if row.LogID == "" || row.Date.Year() < 1970 || row.Date.Year() > 2261 {
			t.Errorf("a row without identity: %+v", row)
		}
		if row.Rest != "" && (row.Rest[0] != '{' || row.Rest[len(row.Rest)-1] != '}') {
			t.Errorf("rest is no object: %q", row.Rest)
		}
	})
}

func BenchmarkParseRow(b *testing.B) {
	raw := []byte(`{"_id":"` + someID + `","log_id":"` + someID + `","date":"2023-11-10T11:08:19.262Z","type":"sapi","description":"Delete organization","connection":null,"connection_id":null,"organization_id":null,"client_id":"11tYabcdefghijklmnop","client_name":"","ip":"192.0.2.1","hostname":null,"details":{"request":{"auth":{"credentials":{},"strategy":"jwt","user":{}},"body":{},"channel":"api","ip":"2a02::1","method":"delete","path":"/api/v2/organizations/org_x","query":{},"userAgent":"Go-Auth0/latest"},"response":{"body":{},"statusCode":204}},"user_id":null,"user_name":null,"user_agent":"Other 0.0.0 / Other 0.0.0","audience":null,"strategy":null,"strategy_type":null,"isMobile":false,"location_info":null}`)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := schema.ParseRow(raw); err != nil {
			b.Fatal(err)
		}
	}
}
