// Package logstream receives Auth0's HTTP log stream.
//
// A request is answered with 200 only once Kafka has acknowledged every event in it.
// Auth0 repeats a request with any other answer, so each event is received at least
// once. By its log_id, it is the same event as the one that is pulled. Only the pull
// proves that nothing is missing; a stream just delivers events sooner.
package logstream

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/semaphore"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Producer makes records durable in the events topic. It retries until ctx ends.
type Producer interface {
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// Bounds of requests. Auth0 does not say how much it sends at once.
const (
	maxBody  = 8 << 20
	maxAhead = 32 << 20 // of all bodies that Kafka has not acknowledged
	// ackTimeout is how long Kafka has to acknowledge. After that, Auth0 must send the request again.
	ackTimeout = 15 * time.Second
	// bodyTimeout is how long a request has to send its whole body, even if it never pauses.
	bodyTimeout = 30 * time.Second
)

// Config configures a Receiver.
type Config struct {
	// Tokens has for each tenant the Authorization header of its stream, with or without "Bearer ".
	Tokens      map[string]string
	BodyTimeout time.Duration // for a whole body; default 30 s
	Log         *slog.Logger
	Registerer  prometheus.Registerer
}

// Receiver is an http.Handler for POST /logs/TENANT. If there is only one tenant, /logs is
// enough.
type Receiver struct {
	cfg      Config
	events   Producer
	ahead    *semaphore.Weighted
	received *prometheus.CounterVec
	requests *prometheus.CounterVec
}

// The results of a request, as values of the metric's label.
const (
	resultOK           = "ok"
	resultUnauthorized = "unauthorized"
	resultTooLarge     = "too_large"
	resultMalformed    = "malformed"
	resultBroken       = "broken_off"
	resultNotAcked     = "not_acked"
)

// New returns a receiver that produces to the events topic.
func New(cfg Config, events Producer) *Receiver {
	if cfg.BodyTimeout <= 0 {
		cfg.BodyTimeout = bodyTimeout
	}
	factory := promauto.With(cfg.Registerer)
	receiver := &Receiver{
		cfg: cfg, events: events, ahead: semaphore.NewWeighted(maxAhead),
		received: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_receive_events_total",
			Help: "Events of log streams that Kafka has acknowledged.",
		}, []string{"tenant"}),
		requests: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantwatch_receive_requests_total",
			Help: "Requests of log streams.",
		}, []string{"tenant", "result"}),
	}

	// Create the series, so that they are zero rather than absent.
	for tenant := range cfg.Tokens {
		receiver.received.WithLabelValues(tenant)
		for _, result := range []string{resultOK, resultTooLarge, resultMalformed, resultBroken, resultNotAcked} {
			receiver.requests.WithLabelValues(tenant, result)
		}
	}
	receiver.requests.WithLabelValues("", resultUnauthorized)
	return receiver
}

// ServeHTTP receives one request of a stream.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	// Without a valid token, the answer must not depend on anything else.
	tenant, ok := r.authorize(req)
	if !ok {
		r.requests.WithLabelValues("", resultUnauthorized).Inc()
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "want POST", http.StatusMethodNotAllowed)
		return
	}

	status, result, err := r.receive(w, req, tenant)
	r.requests.WithLabelValues(tenant, result).Inc()
	if err != nil {
		r.cfg.Log.Warn("rejected a request of a log stream", "tenant", tenant, "status", status, "err", err)
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "10")
		}
		http.Error(w, err.Error(), status)
		return
	}
	w.WriteHeader(status)
}

// bearer is the optional scheme before a token.
const bearer = "Bearer "

// authorize returns the tenant of a stream. Its duration does not depend on whether the
// tenant exists, or on how much of the token is right.
func (r *Receiver) authorize(req *http.Request) (tenant string, ok bool) {
	rest, found := strings.CutPrefix(req.URL.Path, "/logs")
	tenant = strings.TrimSuffix(strings.TrimPrefix(rest, "/"), "/")
	if tenant == "" && len(r.cfg.Tokens) == 1 {
		for tenant = range r.cfg.Tokens {
		}
	}

	// Hashes have the same length, so the comparison does not reveal that of the token.
	want, known := r.cfg.Tokens[tenant]
	same := func(given string) int {
		givenSum, wantSum := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
		return subtle.ConstantTimeCompare(givenSum[:], wantSum[:])
	}

	// The case of the scheme does not matter, nor the number of spaces after it.
	given := req.Header.Get("Authorization")
	right := same(given)
	if len(given) > len(bearer) && strings.EqualFold(given[:len(bearer)], bearer) {
		bare := strings.TrimLeft(given[len(bearer):], " ")
		right |= same(bare) | same(bearer+bare)
	}
	return tenant, right == 1 && known && found && want != ""
}

// isGzip reports whether the body is compressed with gzip. It returns an error for any other
// compression.
func isGzip(req *http.Request) (compressed bool, err error) {
	encoding := strings.Join(req.Header.Values("Content-Encoding"), ",")
	switch encoding = strings.ToLower(strings.TrimSpace(encoding)); encoding {
	case "", "identity":
		return false, nil
	case "gzip", "x-gzip":
		return true, nil
	default:
		return false, fmt.Errorf("Content-Encoding %.40q is not supported: send it plain or with gzip", encoding)
	}
}

// readBody reads a body within BodyTimeout. maxBody limits its size, both before and after
// the decompression.
func (r *Receiver) readBody(w http.ResponseWriter, req *http.Request, compressed bool) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(r.cfg.BodyTimeout)) // a test's recorder has no deadline
	var body io.Reader = http.MaxBytesReader(w, req.Body, maxBody)
	if compressed {
		plain, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = plain
	}

	// One byte more than the limit shows that there is more.
	data, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err == nil && len(data) > maxBody {
		err = &http.MaxBytesError{Limit: maxBody}
	}

	// After an error, the deadline stays: without it the server would wait for the rest of the body.
	if err == nil {
		_ = control.SetReadDeadline(time.Time{})
	}
	return data, err
}

// receive reads a request and produces its events. It returns the answer.
func (r *Receiver) receive(
	w http.ResponseWriter, req *http.Request, tenant string,
) (status int, result string, err error) {
	compressed, err := isGzip(req)
	if err != nil {
		return http.StatusUnsupportedMediaType, resultMalformed, err
	}

	// Reserve memory for the decompressed body, whose size may be unknown.
	room := req.ContentLength
	if room > maxBody {
		return http.StatusRequestEntityTooLarge, resultTooLarge, errTooLarge
	}
	if room < 0 || compressed {
		room = maxBody
	}
	ctx, cancel := context.WithTimeout(req.Context(), ackTimeout)
	defer cancel()
	if err := r.ahead.Acquire(ctx, room); err != nil {
		return http.StatusServiceUnavailable, resultNotAcked,
			errors.New("too many events wait for Kafka; send them again")
	}
	defer r.ahead.Release(room)

	body, err := r.readBody(w, req, compressed)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, resultTooLarge, errTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout, resultBroken,
			fmt.Errorf("the body was not received within %s", r.cfg.BodyTimeout)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum),
		errors.As(err, new(flate.CorruptInputError)):
		return http.StatusBadRequest, resultMalformed, fmt.Errorf("decompress the body: %w", err)
	case err != nil:
		return http.StatusBadRequest, resultBroken, fmt.Errorf("read the body: %w", err)
	}

	records, err := recordsOf(body, tenant)
	if err != nil {
		return http.StatusBadRequest, resultMalformed,
			fmt.Errorf("the body is neither a JSON array nor JSON objects: %w", err)
	}

	// If we stop here, Auth0 has no answer and sends the request again. The body may have taken long,
	// so Kafka has its own timeout.
	acking, stop := context.WithTimeout(req.Context(), ackTimeout)
	defer stop()
	if len(records) > 0 {
		if err := r.events.Produce(acking, records, func(error) {}); err != nil {
			return http.StatusServiceUnavailable, resultNotAcked,
				errors.New("the events were not acknowledged by Kafka; send them again")
		}
	}

	r.received.WithLabelValues(tenant).Add(float64(len(records)))
	return http.StatusOK, resultOK, nil
}

var errTooLarge = fmt.Errorf("the body is larger than %d MB", maxBody>>20)

// recordsOf returns the records of the events in a body.
func recordsOf(body []byte, tenant string) ([]schema.Record, error) {
	items, err := schema.SplitItems(body)
	if err != nil {
		return nil, err
	}

	records := make([]schema.Record, 0, len(items))
	now := time.Now()
	for _, item := range items {
		// Keep an event that cannot be identified: only the writer decides what cannot be stored.
		raw := Unwrap(item)
		event := schema.Event{Raw: raw}
		if event.Identify() != nil {
			event = schema.Event{Raw: raw}
		}
		event.Tenant, event.Source, event.FetchedAt = tenant, schema.SourceStream, now
		records = append(records, event.Record())
	}
	return records, nil
}

// Unwrap returns the event of an item {"log_id": …, "data": {…}}, byte for byte. If the event
// has no log_id, that of the item is added. Anything else is returned as it is. Azure Event
// Grid puts such items into the data of its own envelopes.
func Unwrap(item []byte) []byte {
	// Quickly exclude the member data in any spelling.
	if !bytes.Contains(item, []byte(`data"`)) && !bytes.Contains(item, []byte(`\u`)) {
		return item
	}
	outer := members(item)
	if outer.data == nil {
		return item
	}

	// In an envelope, the data is an item itself, and no event.
	event, inner := outer.data, members(outer.data)
	if inner.data != nil && !inner.event {
		outer, event, inner = inner, inner.data, members(inner.data)
	}
	if inner.id != nil || outer.id == nil {
		return event
	}

	// Insert the log_id as the first member.
	head := append([]byte(`{"log_id":`), outer.id...)
	rest := bytes.TrimLeft(event[1:], " \t\r\n")
	if rest[0] != '}' {
		head = append(head, ',')
	}
	return append(head, rest...)
}

// parts are the members of an object that Unwrap needs.
type parts struct {
	id    []byte // the member log_id
	data  []byte // the member data, if it is an object itself
	event bool   // there is a type or a date, as in events
}

// members returns the parts of an object, or none if it is not valid JSON.
func members(object []byte) parts {
	dec := jsontext.NewDecoder(bytes.NewBuffer(object),
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return parts{}
	}
	var found parts
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return parts{}
		}
		member := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return parts{}
		}

		// The value of the decoder is only valid until its next call: use the bytes of the object.
		end := int(dec.InputOffset())
		whole := object[end-len(value) : end : end]
		switch {
		case member == "log_id":
			found.id = whole
		case member == "type", member == "date":
			found.event = true
		case member == "data" && whole[0] == '{':
			found.data = whole
		}
	}
	return found
}
