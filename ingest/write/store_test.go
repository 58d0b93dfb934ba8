package write_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

func TestMain(m *testing.M) {
	chlocal.Host()
	os.Exit(m.Run())
}

// id is a log_id of the given second of 2026-11-20.
func id(i int) string {
	return fmt.Sprintf("90020261120%02d%02d%02d%06d%014d%019d", i/3600%24, i/60%60, i%60, 123456, 0, i)
}

// hostile are events as they come or as somebody would like them to break us:
// everything storable among them.
func hostile() map[string]string {
	events := map[string]string{
		"plain":              `{"_id":"ID","log_id":"ID","date":"2026-11-20T10:11:12.345Z","type":"s","ip":"198.51.100.7","user_id":"auth0|1","details":{"a":1}}`,
		"nulls":              `{"log_id":"ID","date":"2026-11-20T10:11:12.345Z","type":"sapi","description":null,"connection":null,"user_id":null,"details":null,"location_info":null}`,
		"empty strings":      `{"log_id":"ID","date":"2026-11-20T10:11:12.345Z","type":"","description":"","user_id":""}`,
		"absent":             `{"log_id":"ID"}`,
		"only _id":           `{"_id":"ID","date":"2026-11-20T10:11:12.345Z","type":"s"}`,
		"other _id":          `{"_id":"other","log_id":"ID","type":"s"}`,
		"scope array":        `{"log_id":"ID","scope":["openid","profile"],"type":"f"}`,
		"scope text":         `{"log_id":"ID","scope":"openid profile","type":"seccft"}`,
		"scope odd":          `{"log_id":"ID","scope":["a",1,null,{"b":2}],"type":"seccft"}`,
		"date object":        `{"log_id":"ID","date":{"$date":"2026-11-20"},"type":"s"}`,
		"date number":        `{"log_id":"ID","date":1795000000,"type":"s"}`,
		"date seconds":       `{"log_id":"ID","date":"2026-11-20T10:11:12Z","type":"s"}`,
		"date zone":          `{"log_id":"ID","date":"2026-11-20T10:11:12.345+02:00","type":"s"}`,
		"date micros":        `{"log_id":"ID","date":"2026-11-20T10:11:12.345678Z","type":"s"}`,
		"date ten years ago": `{"log_id":"ID","date":"2016-11-20T10:11:12.345Z","type":"s"}`,
		"date ten years on":  `{"log_id":"ID","date":"2036-11-20T10:11:12.345Z","type":"s"}`,
		"date year 1":        `{"log_id":"ID","date":"0001-01-01T00:00:00.000Z","type":"s"}`,
		"date year 9999":     `{"log_id":"ID","date":"9999-12-31T23:59:59.999Z","type":"s"}`,
		"date garbage":       `{"log_id":"ID","date":"yesterday","type":"s"}`,
		"unknown members":    `{"log_id":"ID","type":"new_type_2030","shiny":{"x":[1,2,{"y":null}]},"":"no name","a.b":1,"a":{"b":2}}`,
		"duplicate key":      `{"log_id":"ID","type":"s","ip":"192.0.2.1","ip":"192.0.2.2","details":{"k":1,"k":2}}`,
		"duplicate details":  `{"log_id":"ID","type":"s","details":{"k":1},"details":{"k":2}}`,
		"duplicate log_id":   `{"log_id":"ID","log_id":"900x","type":"s"}`,
		"400 digits":         `{"log_id":"ID","type":"s","n":` + strings.Repeat("9", 400) + `,"details":{"response":{"statusCode":` + strings.Repeat("9", 400) + `}}}`,
		"1e400":              `{"log_id":"ID","type":"s","details":{"n":1e400,"m":-0.000}}`,
		"lone surrogate":     `{"log_id":"ID","type":"s","user_name":"a\ud800b","details":{"x":"\udc00"},"description":"\ud83d\ude00 fine"}`,
		"surrogate key":      `{"log_id":"ID","type":"s","\ud800":1}`,
		"escapes":            `{"log_id":"ID","type":"s","description":"quote \" back \\ slash \/ tab \t nul \u0000 bell \u0007 é \u00e9 \u2028"}`,
		"invalid utf-8":      "{\"log_id\":\"ID\",\"type\":\"s\",\"user_name\":\"\xff\xfe\",\"details\":{\"x\":\"\xc3\"}}",
		"quote in ip":        `{"log_id":"ID","type":"s","ip":"'; DROP TABLE events_stored; --","user_agent":"\\'"}`,
		"numbers for texts":  `{"log_id":"ID","type":7,"ip":1,"user_id":true,"client_id":{"a":1},"hostname":[]}`,
		"bool":               `{"log_id":"ID","type":"s","isMobile":false,"is_mobile":true}`,
		"white space":        " { \"log_id\" : \"ID\" ,\n\"type\":\"s\", \"details\" : { \"a\" :\t1 } , \"x\" : [ ] } ",
		"escaped name":       `{"log_\u0069d":"ID","typ\u0065":"s"}`,
		"details text":       `{"log_id":"ID","type":"s","details":"just text"}`,
		"details array":      `{"log_id":"ID","type":"s","details":[1,2]}`,
		"2 MB of details":    `{"log_id":"ID","type":"s","details":{"body":"` + strings.Repeat("x", 2<<20) + `"}}`,
		"2 MB user agent":    `{"log_id":"ID","type":"s","user_agent":"` + strings.Repeat("u", 2<<20) + `"}`,
		"deep":               `{"log_id":"ID","type":"s","details":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
	}
	i := 0
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range events {
			if !yield(name) {
				return
			}
		}
	}) {
		events[name] = strings.ReplaceAll(events[name], `"ID"`, `"`+id(i)+`"`)
		i++
	}
	return events
}

// TestStoreIsLossless stores what is hostile in one insert and rebuilds each
// event from its row as equal JSON.
func TestStoreIsLossless(t *testing.T) {
	conn, dsn := chlocaltest.Open(t)
	want := map[string]string{}
	rows := 0
	months := map[string]*write.Block{}
	for name, raw := range hostile() {
		row, err := schema.ParseRow([]byte(raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want[row.LogID] = raw
		month := row.Date.Format("200601")
		if months[month] == nil {
			months[month] = write.NewBlock()
		}
		months[month].Add(&schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: time.Now()}, &row)
		rows++
	}
	opts, err := schema.Options(dsn, nil)
	if err != nil {
		t.Fatal(err)
	}
	store := write.NewStore(opts)
	defer store.Close()
	for _, block := range months {
		for range 3 { // one row each, however often
			if err := store.Insert(t.Context(), block); err != nil {
				t.Fatalf("insert: %v", err)
			}
		}
	}
	got := map[string]string{}
	res, err := conn.Query(t.Context(), "SELECT log_id, raw FROM events WHERE tenant = 'acme'")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	for res.Next() {
		var id, raw string
		if err := res.Scan(&id, &raw); err != nil {
			t.Fatal(err)
		}
		if _, twice := got[id]; twice {
			t.Errorf("%s is there twice", id)
		}
		got[id] = raw
	}
	if err := res.Err(); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || len(want) != rows {
		t.Errorf("%d events stored, want %d", len(got), len(want))
	}
	for id, raw := range want {
		g, w := canonical(t, got[id]), canonical(t, raw)
		if g != w {
			t.Errorf("%s is not what it was\ngot  %.300s\nwant %.300s", id, g, w)
		}
	}
	// What can be searched, though its text is kept elsewhere.
	var scope string
	if err := conn.QueryRow(t.Context(), "SELECT scope FROM events WHERE scope != '' AND position(rest, 'openid') > 0").Scan(&scope); err != nil || scope != "openid profile" {
		t.Errorf("scope of an array: %q, %v", scope, err)
	}
}

// canonical is JSON with members in order and nothing else changed: numbers as
// they were written, repeated names kept, strings decoded where they are sound.
func canonical(t *testing.T, text string) string {
	t.Helper()
	dec := jsontext.NewDecoder(bytes.NewBufferString(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	out, err := canonicalValue(dec)
	if err != nil {
		t.Errorf("not JSON: %v in %.200s", err, text)
	}
	return out
}

func canonicalValue(dec *jsontext.Decoder) (string, error) {
	switch dec.PeekKind() {
	case '{':
		if _, err := dec.ReadToken(); err != nil {
			return "", err
		}
		var members []string
		for dec.PeekKind() != '}' {
			name, err := canonicalValue(dec)
			if err != nil {
				return "", err
			}
			value, err := canonicalValue(dec)
			if err != nil {
				return "", err
			}
			members = append(members, name+":"+value)
		}
		_, err := dec.ReadToken()
		// Stable: among equal names the order counts.
		slices.SortStableFunc(members, func(a, b string) int {
			an, _, _ := strings.Cut(a, ":")
			bn, _, _ := strings.Cut(b, ":")
			return cmp.Compare(an, bn)
		})
		return "{" + strings.Join(members, ",") + "}", err
	case '[':
		if _, err := dec.ReadToken(); err != nil {
			return "", err
		}
		var items []string
		for dec.PeekKind() != ']' {
			item, err := canonicalValue(dec)
			if err != nil {
				return "", err
			}
			items = append(items, item)
		}
		_, err := dec.ReadToken()
		return "[" + strings.Join(items, ",") + "]", err
	case '"':
		v, err := dec.ReadValue()
		if err != nil {
			return "", err
		}
		if text, err := jsontext.AppendUnquote(nil, v); err == nil {
			return fmt.Sprintf("%q", text), nil
		}
		return "raw" + string(v), nil
	}
	v, err := dec.ReadValue()
	if errors.Is(err, io.EOF) {
		return "", io.ErrUnexpectedEOF
	}
	return string(v), err
}
