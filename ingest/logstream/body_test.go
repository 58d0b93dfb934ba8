package logstream_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/ingest/logstream"
	"github.com/tenantwatch/tenantwatch/schema"
)

// packed is a text as gzip.
func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// nested is an event with arrays or objects in one another.
func nested(id string, levels int, open, end string) string {
	return `{"log_id":"` + id + `","date":"` + when + `","type":"s","details":` + strings.Repeat(open, levels) + "1" + strings.Repeat(end, levels) + `}`
}

// TestBodies: what forwarders make of a body reaches the topic byte for byte, and
// what cannot be read does not keep its neighbors out.
func TestBodies(t *testing.T) {
	one, two := `{"log_id":"`+id+`","type":"s"}`, `{"log_id":"x","type":"f","s":"]},{"}`
	deep, deepArray := nested("deep", 20_000, `{"a":`, "}"), nested("deep", 20_000, "[", "]")
	for _, tt := range []struct {
		name, encoding, body string
		status               int
		want                 []string
	}{
		{"gzip", "gzip", packed(t, "["+one+","+two+"]"), 200, []string{one, two}},
		{"gzip by its old name, in capitals", "X-GZIP", packed(t, one), 200, []string{one}},
		{"gzip in two members", "gzip", packed(t, "["+one+",") + packed(t, two+"]"), 200, []string{one, two}},
		{"gzip that is none", "gzip", "[" + one + "]", 400, nil},
		{"half of gzip", "gzip", packed(t, "["+one+"]")[:30], 400, nil},
		{"gzip with a wrong sum", "gzip", packed(t, "[]")[:len(packed(t, "[]"))-8] + "12345678", 400, nil},
		{"a bomb", "gzip", packed(t, strings.Repeat(" ", logstream.MaxBody+1)), 413, nil},
		{"as large as may be", "gzip", packed(t, one+strings.Repeat(" ", logstream.MaxBody-len(one))), 200, []string{one}},
		{"another packing", "br", "[]", 415, nil},
		{"two packings", "gzip, gzip", packed(t, packed(t, "[]")), 415, nil},
		{"none by its name", "identity", "[" + one + "]", 200, []string{one}},
		{"a byte order mark", "", "\xef\xbb\xbf[" + one + "]", 200, []string{one}},
		{"a byte order mark and lines", "", "\xef\xbb\xbf" + one + "\n" + two, 200, []string{one, two}},
		{"Event Grid", "", `[{"id":"1","eventType":"x","data":{"log_id":"` + id + `","data":{"type":"s","date":"` + when + `"}}}]`,
			200, []string{`{"log_id":"` + id + `","type":"s","date":"` + when + `"}`}},
		{"an event with data of its own", "", `{"log_id":"x","data":{"type":"s","data":{"a":1}}}`, 200, []string{`{"log_id":"x","type":"s","data":{"a":1}}`}},
		{"nested too deeply, among others", "", "[" + one + "," + deep + "," + deepArray + "," + two + "]", 200, []string{one, deep, deepArray, two}},
		{"nested too deeply, a line", "", one + "\n" + deep + "\n" + two + "\n", 200, []string{one, deep, two}},
		{"elements that are no JSON", "", `[` + one + `,{"a":01},nul,"x",[7],{"b":"` + "\t\xff" + `"},` + two + `]`, 200,
			[]string{one, `{"a":01}`, `nul`, `"x"`, `[7]`, "{\"b\":\"\t\xff\"}", two}},
		{"a line that is no JSON", "", one + "\n{\"a\":\nxyz\n" + two, 200, []string{one, `{"a":`, "xyz", two}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, k, _ := receiver(t)
			req := httptest.NewRequest(http.MethodPost, "/logs/acme/", strings.NewReader(tt.body))
			req.Header.Set("Authorization", "bearer "+token)
			if tt.encoding != "" {
				req.Header.Set("Content-Encoding", tt.encoding)
			}
			w := httptest.NewRecorder()
			r.ServeHTTP(w, req)
			if w.Code != tt.status {
				t.Fatalf("%d %s, want %d", w.Code, w.Body, tt.status)
			}
			var got []string
			for _, rec := range k.records {
				e := schema.EventOf(&rec)
				got = append(got, string(e.Raw))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%.500s", diff)
			}
		})
	}
}

// TestSlowBody: a body that drips does not hold its room for ever.
func TestSlowBody(t *testing.T) {
	k := &topic{}
	s := httptest.NewServer(logstream.New(logstream.Config{Tokens: map[string]string{"acme": token}, BodyTimeout: 50 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}, k))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /logs HTTP/1.1\r\nHost: x\r\nAuthorization: "+token+"\r\nContent-Length: 1000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := io.WriteString(conn, " "); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // the drip itself, not a wait for something
		}
	}()
	answer, err := io.ReadAll(conn) // until the other side ends it
	if err != nil && len(answer) == 0 {
		t.Fatal(err)
	}
	conn.Close()
	<-ended
	if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || len(k.records) > 0 {
		t.Errorf("%q, %d events", answer, len(k.records))
	}
}
