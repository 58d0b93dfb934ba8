package schema

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
)

// oddEvents are texts at the borders of JSON.
var oddEvents = []string{
	``, ` `, `{`, `{}`, ` { } `, `{}x`, `[]`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{"a":1 "b":2}`,
	`{"a":[1,2,]}`, `{"a":[,]}`, `{"a":[}`, `{"a":{]}`, `{"a":[{"b":[[]]}],"c":{}}`, `{"a":[1}`, `{"a":{"b"}}`, `{"a":{"b":1,}}`,
	`{"a":01}`, `{"a":-}`, `{"a":-0}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":1e+}`, `{"a":-1.5E-07}`, `{"a":1x}`,
	`{"a":true,"b":false,"c":null}`, `{"a":tru}`, `{"a":truex}`, `{"a":nul`, `{"a":True}`,
	`{"a":"\u00e4\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":"\uD7ff\ue000"}`, `{"a":"\u00g0"}`, `{"a":"\u00`, `{"a":"\x"}`, `{"a":"\`, `{"a":"b\"c\\"}`,
	"{\"a\":\"\x1f\"}", "{\"a\":\"12345678\x1f\"}", "{\"a\":\"\x7f\xc3\xa4\"}", "{\"a\":\"\xff\"}", "{\"a\":\"\xed\xa0\x80\"}", "\xef\xbb\xbf{}",
	"{\t\"a\"\r:\n1 , \"b\" : [ ] }", "{\"a\"\v:1}", `{"log_id":"1","details":{"a":{"b":1}},"details":2}`,
	`{"details":{"request":{"method":"get","path":"\/x"},"response":{"statusCode":429},"limit":{"bucket":"b"}}}`,
	`{"details":{}}`, `{"details":{"request":1,}}`, `{"details":{"request"}}`, `{"a":"` + strings.Repeat("x", 40) + `"}`,
	`{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, `{"a":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`,
}

// comparePlain compares both ways to read an event: what readPlain takes, read takes
// as well, as valid Unicode, with the same members.
func comparePlain(t *testing.T, raw []byte) (plain bool) {
	t.Helper()
	p := parsers.Get().(*parser)
	if !p.readPlain(raw) {
		return false
	}
	fast := slices.Clone(p.members)
	p.unicode = true
	if err := p.read(raw); err != nil {
		t.Fatalf("taken as plain: %q, but: %v", raw, err)
	}
	if !slices.Equal(fast, p.members) {
		t.Fatalf("%q: got %+v, want %+v", raw, fast, p.members)
	}
	return true
}

func TestPlain(t *testing.T) {
	for _, raw := range oddEvents {
		plain := comparePlain(t, []byte(raw))
		deep := strings.Contains(raw, strings.Repeat("[", plainDepth+1))
		surrogate := strings.Contains(raw, `\ud83d`)
		if want := strings.HasPrefix(strings.TrimSpace(raw), "{") && json.Valid([]byte(raw)) && !deep && !surrogate &&
			!strings.Contains(raw, "\xff") && !strings.Contains(raw, "\xed"); plain != want {
			t.Errorf("%q: plain is %v", raw, plain)
		}
	}

	// Nearly all events are plain, or it would be of no use.
	tenant := auth0sim.New(auth0sim.Config{HistoryEvents: 2000})
	plain := 0
	for _, id := range tenant.IDs() {
		raw, _ := tenant.Event(id)
		if comparePlain(t, raw) {
			plain++
		}
	}
	if plain < 1900 {
		t.Errorf("%d of 2000 events are plain", plain)
	}
}

func FuzzPlain(f *testing.F) {
	for _, raw := range oddEvents {
		f.Add([]byte(raw))
	}
	f.Add([]byte(`{"log_id":"x","date":"2026-11-20T10:11:12.345Z","details":{"request":{"path":"a","path":"b"},"response":{"statusCode":1e2}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		comparePlain(t, raw)

		// The values with columns do not depend on the way that was taken.
		row, err := ParseRow(raw)
		if err != nil || row.Details == "" {
			return
		}
		p := &parser{}
		if slow := p.detail(nil, row.Details); slow != row.Detail {
			t.Errorf("%q: got %+v, want %+v", raw, row.Detail, slow)
		}
	})
}
