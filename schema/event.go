package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Source says which way an event came in.
type Source string

// The sources of an event, as the events topic's source header names them.
const (
	Tail     Source = "tail"     // the running pull
	Backfill Source = "backfill" // the pull of what was there at the first start
	Overlap  Source = "overlap"  // the tail's second look at recent time
	Repair   Source = "repair"   // an audit's healing
	Probe    Source = "probe"    // a probe's result
	Stream   Source = "stream"   // Auth0's log stream
	Self     Source = "self"     // what tenantwatch found out itself
)

// OwnTypes begins the types of the events that tenantwatch makes itself.
const OwnTypes = "tenantwatch_"

// The types of the events that tenantwatch makes itself; every other type is
// Auth0's. They have the form of a tenant log event.
const (
	TypeProbe    = "tenantwatch_probe"     // details: {probe, ok, status, error, latency_ms}
	TypeAPIError = "tenantwatch_api_error" // a failed Management call of our own; details: {request{method,path}, response{statusCode, body{error, message, errorCode}}}
	TypeGap      = "tenantwatch_gap"       // Auth0 dropped events before they were pulled; details: {from, until, seconds}
	TypeAudit    = "tenantwatch_audit"     // events were missing in ClickHouse; details: {from, until, missing, healed, repair}
	TypeHealth   = "tenantwatch_health"    // how the tenant's events come in, once a minute; details: see scanner/health
	// A log stream of the tenant has become active, paused or suspended; details: {id, name, type, status}.
	TypeLogStream = "tenantwatch_log_stream"
	// The scanner has forgotten what a rule had counted for some group keys, since there were too many; details: {rule, title}.
	// It is shown to the rules only: it is in no topic.
	TypeForgotten = "tenantwatch_groups_forgotten"
)

// Event is one tenant log event.
type Event struct {
	Tenant    string
	Source    Source
	FetchedAt time.Time // when it was pulled, by the tenant's clock, so that its age can be told
	LogID     string
	Type      string
	Date      time.Time // event time, UTC
	Raw       []byte    // the event's JSON, as received
}

// NewOwnEvent is an event that tenantwatch makes itself, in the form of Auth0's.
// details must be what JSON can hold.
func NewOwnEvent(tenant, typ, description string, details any) Event {
	now := time.Now().UTC()
	var e struct {
		LogID       string    `json:"log_id"`
		Date        time.Time `json:"date"`
		Type        string    `json:"type"`
		Description string    `json:"description"`
		TenantName  string    `json:"tenant_name"`
		Details     any       `json:"details"`
	}
	// Two events of one type and tenant within a nanosecond would be one.
	e.LogID = fmt.Sprintf("%s-%s-%d", typ, tenant, now.UnixNano())
	e.Date, e.Type, e.Description, e.TenantName, e.Details = now.Truncate(time.Millisecond), typ, description, tenant, details
	raw, err := json.Marshal(e)
	if err != nil {
		panic(err) // texts, numbers and times only
	}
	return Event{Tenant: tenant, Source: Self, FetchedAt: e.Date, LogID: e.LogID, Type: e.Type, Date: e.Date, Raw: raw}
}

// The header names of the events and deadletter topics.
const (
	headerTenant    = "tenant"
	headerSource    = "source"
	headerFetchedAt = "fetched_at"
	headerLogID     = "log_id"
	headerDate      = "date"
	headerReason    = "reason"
	headerID        = "id"
	headerRetried   = "retried"
)

// Record is the event as the events topic carries it: keyed by tenant, so that
// one tenant's events stay in the order in which they were pulled.
func (e *Event) Record() Record {
	tenant := []byte(e.Tenant)
	r := Record{Key: tenant, Value: e.Raw, Headers: make([]Header, 0, 5)}
	r.Headers = append(r.Headers, Header{headerTenant, tenant}, Header{headerSource, []byte(e.Source)},
		Header{headerFetchedAt, e.FetchedAt.UTC().AppendFormat(nil, time.RFC3339Nano)})
	if e.LogID != "" {
		r.Headers = append(r.Headers, Header{headerLogID, []byte(e.LogID)}, Header{headerDate, e.Date.UTC().AppendFormat(nil, time.RFC3339Nano)})
	}
	return r
}

// EventOf reads back what Event.Record wrote, without a look at the event
// itself: Type is still to be had from Identify, and LogID and Date too where
// they were not known when it was written. Missing headers, as of a record that
// another program wrote, leave their fields as the record's key and time.
func EventOf(r *Record) Event {
	e := Event{Tenant: r.Header(headerTenant), FetchedAt: r.Time, LogID: r.Header(headerLogID), Raw: r.Value}
	if e.Tenant == "" {
		e.Tenant = string(r.Key)
	}
	if e.Source = Source(r.Header(headerSource)); e.Source == "" {
		e.Source = Tail
	}
	if t, ok := r.time(headerFetchedAt); ok {
		e.FetchedAt = t
	}
	if t, ok := r.time(headerDate); ok && e.LogID != "" {
		e.Date = t
	}
	return e
}

// The reasons why an event cannot be stored.
var (
	ErrNotObject = errors.New("not a JSON object")
	ErrNoID      = errors.New("neither log_id nor _id is a string")
	ErrNoDate    = errors.New("neither date nor log_id tells a time between 1970 and 2261")
)

// Identify fills in LogID, Type and Date from Raw. The date falls back to the
// time in the log_id, which never changes either. An error is one of the
// reasons above, or says where the JSON is broken; the event is a dead letter.
func (e *Event) Identify() error {
	var r Row
	if err := r.parse(e.Raw, false); err != nil {
		return err
	}
	e.LogID, e.Type, e.Date = r.LogID, r.Type, r.Date
	return nil
}

// dateLayout is how Auth0 writes event times.
const dateLayout = "2006-01-02T15:04:05.000Z"

// idPrefix begins every log_id.
const idPrefix = "900"

const (
	idLayout = "20060102150405"
	idDigits = 56
)

// IDTime is the moment at which Auth0 stored the event of a log_id, as the id
// itself tells: 900, UTC year to second, then a fraction. It is not the event
// time, which is up to seconds earlier.
func IDTime(logID string) (time.Time, bool) {
	if len(logID) != idDigits || logID[:len(idPrefix)] != idPrefix {
		return time.Time{}, false
	}
	digits := logID[len(idPrefix):]
	var parts [7]int // year, month, day, hour, minute, second, millisecond
	at := 0
	for i, width := range [...]int{4, 2, 2, 2, 2, 2, 3} { // of the fraction only the milliseconds are common to all generations of ids
		for range width {
			c := digits[at] - '0'
			if c > 9 {
				return time.Time{}, false
			}
			parts[i] = 10*parts[i] + int(c)
			at++
		}
	}
	t := time.Date(parts[0], time.Month(parts[1]), parts[2], parts[3], parts[4], parts[5], parts[6]*int(time.Millisecond), time.UTC)
	// Date takes the 30th of February for the 2nd of March: no id has that.
	if _, month, day := t.Date(); int(month) != parts[1] || day != parts[2] || parts[3] > 23 || parts[4] > 59 || parts[5] > 59 {
		return time.Time{}, false
	}
	return t, true
}

// SyntheticID is a log_id below which every event was stored before t, to the
// second. Auth0 takes it as a checkpoint although no event has it.
func SyntheticID(t time.Time) string {
	return fmt.Sprintf("%s%s%039d", idPrefix, t.UTC().Format(idLayout), 0)
}
