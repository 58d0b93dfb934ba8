// Package logstream receives Auth0's HTTP log stream.
//
// It promises that a request is answered with 200 only when Kafka has acked
// every event in it. Auth0 repeats what was not acknowledged, so each event
// comes at least once; it is the same event as the one that is pulled, by its
// log_id. The pull stays what proves that nothing is missing: a stream only
// brings events sooner.
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
	maxAhead = 32 << 20 // of all bodies that Kafka does not have yet
	// ackTimeout is how long Kafka gets; after it Auth0 is told to come again.
	ackTimeout = 15 * time.Second
	// bodyTimeout is how long a request gets to send all of its body, however steadily
	// it drips.
	bodyTimeout = 30 * time.Second
)

// Config is whose streams are received.
type Config struct {
	Tokens      map[string]string // by tenant: what its stream sends as Authorization, with or without "Bearer " before it
	BodyTimeout time.Duration     // for all of a body; default 30 s
	Log         *slog.Logger
	Registerer  prometheus.Registerer
}

// Receiver is an http.Handler for POST /logs/TENANT; /logs will do for the only
// tenant.
type Receiver struct {
	cfg      Config
	events   Producer
	ahead    *semaphore.Weighted
	received *prometheus.CounterVec
	requests *prometheus.CounterVec
}

// The results of a request, as the metric's label has them.
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
	f := promauto.With(cfg.Registerer)
	r := &Receiver{cfg: cfg, events: events, ahead: semaphore.NewWeighted(maxAhead),
		received: f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_receive_events_total", Help: "Events of log streams that Kafka has acked."}, []string{"tenant"}),
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "tenantwatch_receive_requests_total", Help: "Requests of log streams."}, []string{"tenant", "result"}),
	}
	for tenant := range cfg.Tokens {
		r.received.WithLabelValues(tenant)
		for _, result := range []string{resultOK, resultTooLarge, resultMalformed, resultBroken, resultNotAcked} {
			r.requests.WithLabelValues(tenant, result)
		}
	}
	r.requests.WithLabelValues("", resultUnauthorized)
	return r
}

// ServeHTTP receives one request of a stream.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
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
		r.cfg.Log.Warn("a request of the log stream is refused", "tenant", tenant, "status", status, "err", err)
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "10")
		}
		http.Error(w, err.Error(), status)
		return
	}
	w.WriteHeader(status)
}

// bearer is what may stand before a token.
const bearer = "Bearer "

// authorize tells whose stream it is. It takes the same time whether the tenant
// is known or not, and however much of the token is right.
func (r *Receiver) authorize(req *http.Request) (tenant string, ok bool) {
	rest, found := strings.CutPrefix(req.URL.Path, "/logs")
	tenant = strings.TrimSuffix(strings.TrimPrefix(rest, "/"), "/")
	if tenant == "" && len(r.cfg.Tokens) == 1 {
		for tenant = range r.cfg.Tokens {
		}
	}
	want, known := r.cfg.Tokens[tenant]
	same := func(given string) int {
		a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
		return subtle.ConstantTimeCompare(a[:], b[:])
	}
	given := req.Header.Get("Authorization")
	right := same(given)
	if len(given) > len(bearer) && strings.EqualFold(given[:len(bearer)], bearer) { // the scheme has no case
		bare := strings.TrimLeft(given[len(bearer):], " ")
		right |= same(bare) | same(bearer+bare)
	}
	return tenant, right == 1 && known && found && want != ""
}

// packing reports whether the body is packed with gzip.
func packing(req *http.Request) (packed bool, err error) {
	switch encoding := strings.ToLower(strings.TrimSpace(strings.Join(req.Header.Values("Content-Encoding"), ","))); encoding {
	case "", "identity":
		return false, nil
	case "gzip", "x-gzip":
		return true, nil
	default:
		return false, fmt.Errorf("Content-Encoding %.40q is not supported: send it plain or with gzip", encoding)
	}
}

// readBody reads a body, in time and no more than maxBody of it, unpacked or not.
func (r *Receiver) readBody(w http.ResponseWriter, req *http.Request, packed bool) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(r.cfg.BodyTimeout)) // a recorder in a test has none
	var body io.Reader = http.MaxBytesReader(w, req.Body, maxBody)
	if packed {
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = unpacked
	}

	// One byte more than is allowed tells that there is more.
	data, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err == nil && len(data) > maxBody {
		err = &http.MaxBytesError{Limit: maxBody}
	}
	if err == nil {
		_ = control.SetReadDeadline(time.Time{}) // else the server would wait for the rest of the body
	}
	return data, err
}

// receive reads a request and hands its events to Kafka. If we die before the
// acks, Auth0 gets no answer and sends it again.
func (r *Receiver) receive(w http.ResponseWriter, req *http.Request, tenant string) (status int, result string, err error) {
	packed, err := packing(req)
	if err != nil {
		return http.StatusUnsupportedMediaType, resultMalformed, err
	}
	room := req.ContentLength
	if room > maxBody {
		return http.StatusRequestEntityTooLarge, resultTooLarge, fmt.Errorf("the body is larger than %d MB", maxBody>>20)
	}
	if room < 0 || packed {
		room = maxBody
	}

	// The room is for the body as it is unpacked.
	ctx, cancel := context.WithTimeout(req.Context(), ackTimeout)
	defer cancel()
	if err := r.ahead.Acquire(ctx, room); err != nil {
		return http.StatusServiceUnavailable, resultNotAcked, errors.New("too much is under way to Kafka")
	}
	defer r.ahead.Release(room)
	body, err := r.readBody(w, req, packed)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, resultTooLarge, fmt.Errorf("the body is larger than %d MB", maxBody>>20)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout, resultBroken, fmt.Errorf("the body was not sent within %s", r.cfg.BodyTimeout)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, new(flate.CorruptInputError)):
		return http.StatusBadRequest, resultMalformed, fmt.Errorf("unpack the body: %w", err)
	case err != nil:
		return http.StatusBadRequest, resultBroken, fmt.Errorf("read the body: %w", err)
	}
	items, err := schema.SplitItems(body)
	if err != nil {
		return http.StatusBadRequest, resultMalformed, fmt.Errorf("the body is neither a JSON array nor JSON objects: %w", err)
	}
	records := make([]schema.Record, 0, len(items))
	now := time.Now()
	acking, stop := context.WithTimeout(req.Context(), ackTimeout) // the body may have taken longer
	defer stop()
	for _, item := range items {
		raw := Unwrap(item)
		e := schema.Event{Raw: raw}
		if e.Identify() != nil { // the writer is the one that judges
			e = schema.Event{Raw: raw}
		}
		e.Tenant, e.Source, e.FetchedAt = tenant, schema.Stream, now
		records = append(records, e.Record())
	}
	if len(records) > 0 {
		if err := r.events.Produce(acking, records, func(error) {}); err != nil {
			return http.StatusServiceUnavailable, resultNotAcked, errors.New("the events are not acked by Kafka; send them again")
		}
	}
	r.received.WithLabelValues(tenant).Add(float64(len(records)))
	return http.StatusOK, resultOK, nil
}

// Unwrap is the event of an item {"log_id": …, "data": {…}}, byte for byte, with
// the item's log_id where it has none itself. What is no such item is taken for
// an event. Azure Event Grid puts such items into envelopes of its own, whose data
// they are.
func Unwrap(item []byte) []byte {
	if !bytes.Contains(item, []byte(`data"`)) && !bytes.Contains(item, []byte(`\u`)) {
		return item // however it may be spelled, there is no such member
	}
	outer := members(item)
	if outer.data == nil {
		return item
	}
	event, inner := outer.data, members(outer.data)
	if inner.data != nil && !inner.event {
		outer, event, inner = inner, inner.data, members(inner.data)
	}
	if inner.id != nil || outer.id == nil {
		return event
	}
	head := append([]byte(`{"log_id":`), outer.id...)
	rest := bytes.TrimLeft(event[1:], " \t\r\n")
	if rest[0] != '}' {
		head = append(head, ',')
	}
	return append(head, rest...)
}

// parts is what Unwrap needs of an object.
type parts struct {
	id    []byte // the member log_id
	data  []byte // the member data, when it is an object itself
	event bool   // it has a type or a date, as events have
}

func members(object []byte) parts {
	dec := jsontext.NewDecoder(bytes.NewBuffer(object), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
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
