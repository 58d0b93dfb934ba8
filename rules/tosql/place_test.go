package tosql_test

import (
	"testing"

	"github.com/tenantwatch/tenantwatch/rules/tosql"
)

func TestLocate(t *testing.T) {
	for _, tt := range []struct {
		path, text, raw string
		own, plain      bool
	}{
		{"ip", "ip", "", true, true},
		{"client_id", "toString(client_id)", "", true, true},
		{"_id", "log_id", "", true, false},
		{"date", "concat(replaceOne(toString(date), ' ', 'T'), 'Z')", "", true, false},
		{"details", "JSONExtractString(rest, 'details')", "JSONExtractRaw(rest, 'details')", false, false},
		{"details.request.method", "JSONExtractString(details, 'request', 'method')", "JSONExtractRaw(details, 'request', 'method')", false, false},
		{"location_info.country_code", "JSONExtractString(rest, 'location_info', 'country_code')", "JSONExtractRaw(rest, 'location_info', 'country_code')", false, false},
		{"o'hara", `JSONExtractString(rest, 'o\'hara')`, `JSONExtractRaw(rest, 'o\'hara')`, false, false},
	} {
		place := tosql.Locate(tt.path)
		if place.Text != tt.text || place.Own() != tt.own || place.Plain() != tt.plain {
			t.Errorf("%s: got %+v, own %v, plain %v", tt.path, place, place.Own(), place.Plain())
		}
		if raw := place.Raw(); !tt.own && raw != tt.raw {
			t.Errorf("%s: got %s, want %s", tt.path, raw, tt.raw)
		}
	}
}
