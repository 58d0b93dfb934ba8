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
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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
)

// Config is whose streams are received.
type Config struct {
	Tokens     map[string]string // by tenant: what its stream sends as Authorization, with or without "Bearer " before it
	Log        *slog.Logger
	Registerer prometheus.Registerer
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

// authorize tells whose stream it is. It takes the same time whether the tenant
// is known or not, and however much of the token is right.
func (r *Receiver) authorize(req *http.Request) (tenant string, ok bool) {
	rest, found := strings.CutPrefix(req.URL.Path, "/logs")
	tenant = strings.TrimPrefix(rest, "/")
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
	bare, _ := strings.CutPrefix(given, "Bearer ")
	right := same(given) | same(bare)
	return tenant, right == 1 && known && found && want != ""
}

// receive reads a request and hands its events to Kafka. If we die before the
// acks, Auth0 gets no answer and sends it again.
func (r *Receiver) receive(w http.ResponseWriter, req *http.Request, tenant string) (status int, result string, err error) {
	ctx, cancel := context.WithTimeout(req.Context(), ackTimeout)
	defer cancel()
	room := req.ContentLength
	if room > maxBody {
		return http.StatusRequestEntityTooLarge, resultTooLarge, fmt.Errorf("the body is larger than %d MB", maxBody>>20)
	}
	if room < 0 {
		room = maxBody
	}
	if err := r.ahead.Acquire(ctx, room); err != nil {
		return http.StatusServiceUnavailable, resultNotAcked, errors.New("too much is under way to Kafka")
	}
	defer r.ahead.Release(room)
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, resultTooLarge, fmt.Errorf("the body is larger than %d MB", maxBody>>20)
	case err != nil:
		return http.StatusBadRequest, resultBroken, fmt.Errorf("read the body: %w", err)
	}
	items, err := split(body)
	if err != nil {
		return http.StatusBadRequest, resultMalformed, fmt.Errorf("the body is neither a JSON array nor JSON objects: %w", err)
	}
	records := make([]schema.Record, 0, len(items))
	now := time.Now()
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
		if err := r.events.Produce(ctx, records, func(error) {}); err != nil {
			return http.StatusServiceUnavailable, resultNotAcked, errors.New("the events are not acked by Kafka; send them again")
		}
	}
	r.received.WithLabelValues(tenant).Add(float64(len(records)))
	return http.StatusOK, resultOK, nil
}

// split cuts a body into its items, whichever of the three formats it has:
// JSONARRAY is an array of them, JSONLINES has one a line, JSONOBJECT is one.
func split(body []byte) ([][]byte, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var items [][]byte
	for {
		switch dec.PeekKind() {
		case '[':
			if dec.StackDepth() > 0 {
				return nil, errors.New("an item is an array")
			}
			fallthrough
		case ']':
			if _, err := dec.ReadToken(); err != nil {
				return nil, err
			}
		case '{':
			value, err := dec.ReadValue()
			if err != nil {
				return nil, err
			}
			end := int(dec.InputOffset())
			items = append(items, body[end-len(value):end:end])
		default:
			if _, err := dec.ReadToken(); errors.Is(err, io.EOF) {
				return items, nil
			} else if err != nil {
				return nil, err
			}
			return nil, errors.New("an item is no object")
		}
	}
}

// Unwrap is the event of an item {"log_id": …, "data": {…}}, byte for byte, with
// the item's log_id where it has none itself. What is no such item is taken for
// an event.
func Unwrap(item []byte) []byte {
	if !bytes.Contains(item, []byte(`data"`)) && !bytes.Contains(item, []byte(`\u`)) {
		return item // however it may be spelled, there is no such member
	}
	id, data := members(item)
	if data == nil {
		return item
	}
	if inner, _ := members(data); inner != nil || id == nil {
		return data
	}
	head := append([]byte(`{"log_id":`), id...)
	rest := bytes.TrimLeft(data[1:], " \t\r\n")
	if rest[0] != '}' {
		head = append(head, ',')
	}
	return append(head, rest...)
}

// members are the members log_id and data of an object, data only when it is an
// object itself.
func members(object []byte) (logID, data []byte) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(object), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return nil, nil
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, nil
		}
		member := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return nil, nil
		}
		end := int(dec.InputOffset())
		whole := object[end-len(value) : end : end]
		switch {
		case member == "log_id":
			logID = whole
		case member == "data" && whole[0] == '{':
			data = whole
		}
	}
	return logID, data
}
