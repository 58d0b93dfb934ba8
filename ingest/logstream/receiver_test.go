package logstream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/ingest/logstream"
	"github.com/tenantwatch/tenantwatch/schema"
)

const (
	token = "a-token-of-acme-0123456789"
	id    = "90020261121123000000000000000000000001223372036854775807"
	when  = "2026-11-21T12:29:59.500Z"
)

// topic keeps what is produced. While it is down nothing is acked.
type topic struct {
	mu      sync.Mutex // guards what follows
	down    bool
	records []schema.Record
}

func (k *topic) Produce(ctx context.Context, records []schema.Record, failed func(error)) error {
	k.mu.Lock()
	down := k.down
	k.mu.Unlock()
	if down {
		failed(errors.New("no broker"))
		<-ctx.Done()
		return ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records = append(k.records, records...)
	return nil
}

// receiver is one of two tenants' streams, and its topic.
func receiver(t *testing.T) (*logstream.Receiver, *topic, *prometheus.Registry) {
	t.Helper()
	k, reg := &topic{}, prometheus.NewRegistry()
	return logstream.New(logstream.Config{Tokens: map[string]string{"acme": token, "other": "a-token-of-other-0123456789", "none": ""},
		Log: slog.New(slog.DiscardHandler), Registerer: reg}, k), k, reg
}

func post(r http.Handler, path, authorization string, body io.Reader) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, path, body)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

func item(id, data string) string { return `{"log_id":"` + id + `","data":` + data + `}` }

// TestFormats shows that each format brings the same events, byte for byte.
func TestFormats(t *testing.T) {
	one := `{"date":"` + when + `", "type":"s","n":1.50,"log_id":"` + id + `"}`
	two := `{"log_id":"x","date":"` + when + `","type":"f","s":"\ud800"}`
	for _, tt := range []struct {
		name, body string
		want       []string
	}{
		{"JSONARRAY", "[" + item(id, one) + ", " + item("x", two) + "]", []string{one, two}},
		{"JSONLINES", item(id, one) + "\n" + item("x", two) + "\n", []string{one, two}},
		{"JSONLINES with CRLF", item(id, one) + "\r\n" + item("x", two) + "\r\n", []string{one, two}},
		{"JSONOBJECT", item(id, one), []string{one}},
		{"an indented item", "\n{ \"data\" : " + one + " ,\n\t\"log_id\" : \"" + id + "\" }\n", []string{one}},
		{"an event without its wrap", one, []string{one}},
		{"the item's id where the event has none", item(id, `{ "type":"s"}`), []string{`{"log_id":"` + id + `","type":"s"}`}},
		{"the item's id for an empty event", item(id, `{}`), []string{`{"log_id":"` + id + `"}`}},
		{"no id at all", `{"data":{"type":"s"}}`, []string{`{"type":"s"}`}},
		{"data that is no event", item(id, `"text"`), []string{item(id, `"text"`)}},
		{"names twice", item(id, `{"log_id":"a","log_id":"b"}`), []string{`{"log_id":"a","log_id":"b"}`}},
		{"nothing", "", nil},
		{"an empty array", " [ ] ", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, k, _ := receiver(t)
			if w := post(r, "/logs/acme", token, strings.NewReader(tt.body)); w.Code != http.StatusOK {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			var got []string
			for _, rec := range k.records {
				e := schema.EventOf(&rec)
				got = append(got, string(e.Raw))
				if e.Tenant != "acme" || e.Source != schema.SourceStream || e.FetchedAt.IsZero() || string(rec.Key) != "acme" {
					t.Errorf("%+v", e)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestIdentity: an event of the stream is known as the one that is pulled.
func TestIdentity(t *testing.T) {
	r, k, _ := receiver(t)
	post(r, "/logs/acme", token, strings.NewReader(item(id, `{"date":"`+when+`","type":"s"}`)))
	e := schema.EventOf(&k.records[0])
	if e.LogID != id || e.Date.Format("2006-01-02T15:04:05.000Z") != when {
		t.Errorf("%+v", e)
	}
}

// TestRefusals: what is not taken reaches nobody.
func TestRefusals(t *testing.T) {
	right := item(id, `{"type":"s"}`)
	for _, tt := range []struct {
		name, path, authorization, body string
		want                            int
		result                          string
	}{
		{"no token", "/logs/acme", "", right, 401, "unauthorized"},
		{"a wrong token", "/logs/acme", token + "x", right, 401, "unauthorized"},
		{"a part of it", "/logs/acme", token[1:], right, 401, "unauthorized"},
		{"another tenant's", "/logs/other", token, right, 401, "unauthorized"},
		{"an unknown tenant", "/logs/else", token, right, 401, "unauthorized"},
		{"a tenant without a token", "/logs/none", "", right, 401, "unauthorized"},
		{"a tenant without a token, bearer", "/logs/none", "Bearer ", right, 401, "unauthorized"},
		{"no tenant where there are several", "/logs", token, right, 401, "unauthorized"},
		{"another path", "/", token, right, 401, "unauthorized"},
		{"half an item", "/logs/acme", token, right[:20], 400, "malformed"},
		{"half an array", "/logs/acme", token, "[" + right, 400, "malformed"},
		{"a number", "/logs/acme", token, "17", 400, "malformed"},
		{"two arrays in one", "/logs/acme", token, "[[" + right + "]]", 400, "malformed"},
		{"lines without an object", "/logs/acme", token, "1\n\"x\"\nnull\n", 400, "malformed"},
		{"brackets that do not match", "/logs/acme", token, `[{"a":[1}]},` + right + `]`, 400, "malformed"},
		{"HTML", "/logs/acme", token, "<html>", 400, "malformed"},
		{"too large", "/logs/acme", token, strings.Repeat(" ", logstream.MaxBody+1), 413, "too_large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, k, reg := receiver(t)
			if w := post(r, tt.path, tt.authorization, strings.NewReader(tt.body)); w.Code != tt.want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, tt.want)
			}
			if len(k.records) > 0 {
				t.Errorf("%d events were taken", len(k.records))
			}
			tenant := "acme"
			if tt.want == 401 {
				tenant = ""
			}
			if n := counted(t, reg, tenant, tt.result); n != 1 {
				t.Errorf("%s is counted %v times", tt.result, n)
			}
		})
	}
}

// counted is how many requests ended so.
func counted(t *testing.T, reg *prometheus.Registry, tenant, result string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "tenantwatch_receive_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["tenant"] == tenant && labels["result"] == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestTooLargeWithoutLength: a body that does not tell its size is bounded too.
func TestTooLargeWithoutLength(t *testing.T) {
	r, _, _ := receiver(t)
	body := io.MultiReader(strings.NewReader("["), strings.NewReader(strings.Repeat(" ", logstream.MaxBody)), strings.NewReader("]"))
	if w := post(r, "/logs/acme", token, body); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestBearer: the word before the token may be there or not, in the settings too.
func TestBearer(t *testing.T) {
	for _, tt := range []struct {
		set, sent string
		want      int
	}{
		{token, token, 200}, {token, "Bearer " + token, 200}, {"Bearer " + token, "Bearer " + token, 200},
		{"Bearer " + token, token, 401}, {token, "bearer " + token, 200}, {token, "BEARER  " + token, 200}, {token, "Bearer" + token, 401}, {token, "Bearer Bearer " + token, 401},
	} {
		r := logstream.New(logstream.Config{Tokens: map[string]string{"acme": tt.set}, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}, &topic{})
		for _, path := range []string{"/logs", "/logs/", "/logs/acme"} { // the only tenant needs no name
			if w := post(r, path, tt.sent, strings.NewReader("[]")); w.Code != tt.want {
				t.Errorf("%s, set %q, sent %q: %d, want %d", path, tt.set, tt.sent, w.Code, tt.want)
			}
		}
	}
}

func TestMethod(t *testing.T) {
	r, _, _ := receiver(t)
	req := httptest.NewRequest(http.MethodGet, "/logs/acme", nil)
	req.Header.Set("Authorization", token)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// broken is a body that breaks off.
type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestBrokenOff(t *testing.T) {
	r, k, reg := receiver(t)
	if w := post(r, "/logs/acme", token, broken{strings.NewReader(item(id, `{"type":"s"}`))}); w.Code != http.StatusBadRequest {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if len(k.records) > 0 || counted(t, reg, "acme", "broken_off") != 1 {
		t.Error("half a request was taken")
	}
}

// TestKafkaAway: what Kafka does not ack is refused, so that it is sent again.
func TestKafkaAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, k, reg := receiver(t)
		k.down = true
		body := item(id, `{"type":"s"}`)
		w := post(r, "/logs/acme", token, strings.NewReader(body))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || counted(t, reg, "acme", "not_acked") != 1 {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		// Many at once do not fill the memory: beyond the bound they are refused too.
		var all sync.WaitGroup
		codes := make(chan int, 8)
		for range cap(codes) {
			all.Go(func() {
				codes <- post(r, "/logs/acme", token, strings.NewReader(item(id, `{"type":"`+strings.Repeat("x", logstream.MaxBody/2)+`"}`))).Code
			})
		}
		all.Wait()
		close(codes)
		for code := range codes {
			if code != http.StatusServiceUnavailable {
				t.Errorf("%d", code)
			}
		}
		k.mu.Lock()
		k.down = false
		k.mu.Unlock()
		if w := post(r, "/logs/acme", token, strings.NewReader(body)); w.Code != http.StatusOK || len(k.records) != 1 {
			t.Errorf("%d %s, %d events", w.Code, w.Body, len(k.records))
		}
	})
}

// separators stand between items.
const separators = " \t\r\n,[]\xef\xbb\xbf"

// FuzzSplit compares the items of a body with encoding/json: an item is never
// changed, and none is passed over.
func FuzzSplit(f *testing.F) {
	for _, body := range []string{"", "[]", "{}", `{"log_id":"a","data":{}}`, `[{"a":1},{"b":[]}]`, "{}\n{}\r\n{}", "[{}]\n[{}]", "[[{}]]", `{"data":{"log_id":1}}`,
		`[{},`, "]", `{"data":{ }}`, "\xef\xbb\xbf{}", `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", "{}{}", "[{}] {}", "null", `{"log_id":"a","log_id":"b","data":{"x":1}}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		items, err := schema.SplitItems(body)
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			return
		}
		rest := body
		for _, item := range items {
			at := bytes.Index(rest, item)
			if at < 0 {
				t.Fatalf("%q is not in the rest of the body", item)
			}
			if between := bytes.Trim(rest[:at], separators); len(between) > 0 {
				t.Fatalf("%q was passed over", between)
			}
			rest = rest[at+len(item):]
			if len(item) == 0 || item[0] != '{' {
				continue
			}
			kept := bytes.Clone(item)
			raw := logstream.Unwrap(item)
			if !bytes.Equal(item, kept) || !bytes.Equal(body, before) {
				t.Fatal("the item was changed")
			}
			if !json.Valid(item) {
				continue // names and text that encoding/json does not take
			}
			var whole, e map[string]any
			if err := json.Unmarshal(item, &whole); err != nil {
				continue // no object: the writer says so
			}
			if err := json.Unmarshal(raw, &e); err != nil {
				t.Fatalf("%q became %q: %v", item, raw, err)
			}
			// Whatever it was wrapped in, no member of the event is lost.
			if data, ok := last(item, "data"); ok {
				_, typed := data["type"]
				_, dated := data["date"]
				if inner, ok := data["data"].(map[string]any); ok && !typed && !dated {
					data = inner // an envelope in another
				}
				for name, v := range data {
					if !reflect.DeepEqual(e[name], v) {
						t.Fatalf("%q became %q, which lacks %s", item, raw, name)
					}
				}
			}
		}
		if left := bytes.Trim(rest, separators); len(left) > 0 {
			t.Fatalf("%q was passed over", left)
		}
	})
}

// last is the last member of a name that is an object.
func last(object []byte, name string) (found map[string]any, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return nil, false
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, false
		}
		var v any
		if dec.Decode(&v) != nil {
			return nil, false
		}
		if m, object := v.(map[string]any); object && key == name {
			found, ok = m, true
		}
	}
	return found, ok
}
