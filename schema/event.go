package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Source is the way by which an event was received.
type Source string

// The sources of an event, as the events topic's source header names them.
const (
	SourceTail     Source = "tail"     // the continuous pull
	SourceBackfill Source = "backfill" // the pull of the events from before the first start
	SourceOverlap  Source = "overlap"  // the second pull of recent events by the tail
	SourceRepair   Source = "repair"   // an audit's repair
	SourceProbe    Source = "probe"    // a probe's result
	SourceStream   Source = "stream"   // Auth0's log stream
	SourceSelf     Source = "self"     // an observation of tenantwatch itself
)

// OwnTypes is the prefix of the types of events that tenantwatch creates.
const OwnTypes = "tenantwatch_"

// The types of the events that tenantwatch creates, in the form of a tenant log event. All
// other types are Auth0's.
const (
	// A result of a probe. Details: {probe, ok, status, error, latency_ms}.
	TypeProbe = "tenantwatch_probe"
	// One of our own Management API calls failed. Details: {request{method,path},
	// response{statusCode, body{error, message, errorCode}}}.
	TypeAPIError = "tenantwatch_api_error"
	// Auth0 dropped events before they were pulled. Details: {from, until, seconds}.
	TypeGap = "tenantwatch_gap"
	// Events were missing in ClickHouse. Details: {from, until, missing, healed, repair}.
	TypeAudit = "tenantwatch_audit"
	// The state of the tenant's pull, once a minute. Details: see scanner/silence.
	TypeHealth = "tenantwatch_health"
	// A log stream of the tenant has become active, paused or suspended. Details: {id, name, type, status}.
	TypeLogStream = "tenantwatch_log_stream"
	// The scanner has evicted the counts of some groups of a rule, since there were too many.
	// Details: {rule, title}. Only rules see this event: it is in no topic.
	TypeForgotten = "tenantwatch_groups_forgotten"
)

// Event is one tenant log event.
type Event struct {
	Tenant    string
	Source    Source
	FetchedAt time.Time // when it was pulled, by the tenant's clock, so that its age is known
	LogID     string
	Type      string
	Date      time.Time // event time, UTC
	Raw       []byte    // the event's JSON, as received
}

// NewOwnEvent returns an event that tenantwatch creates, in the form of Auth0's.
// details must be valid for encoding/json; NewOwnEvent panics otherwise.
func NewOwnEvent(tenant, typ, description string, details any) Event {
	now := time.Now().UTC()
	date := now.Truncate(time.Millisecond) // the precision of Auth0's dates

	// Two events of the same type and tenant within a nanosecond would have the same id.
	logID := fmt.Sprintf("%s-%s-%d", typ, tenant, now.UnixNano())
	raw, err := json.Marshal(struct {
		LogID       string    `json:"log_id"`
		Date        time.Time `json:"date"`
		Type        string    `json:"type"`
		Description string    `json:"description"`
		TenantName  string    `json:"tenant_name"`
		Details     any       `json:"details"`
	}{logID, date, typ, description, tenant, details})
	if err != nil {
		panic(err) // details has texts, numbers and times only
	}

	return Event{Tenant: tenant, Source: SourceSelf, FetchedAt: date, LogID: logID, Type: typ, Date: date, Raw: raw}
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

// Record returns the record of the events topic. Its key is the tenant, so that
// the events of one tenant stay in the order in which they were pulled.
func (e *Event) Record() Record {
	tenant := []byte(e.Tenant)
	record := Record{Key: tenant, Value: e.Raw, Headers: make([]Header, 0, 5)}
	record.Headers = append(record.Headers,
		Header{headerTenant, tenant},
		Header{headerSource, []byte(e.Source)},
		Header{headerFetchedAt, e.FetchedAt.UTC().AppendFormat(nil, time.RFC3339Nano)})

	// With these, a reader can order events without parsing them.
	if e.LogID != "" {
		record.Headers = append(record.Headers,
			Header{headerLogID, []byte(e.LogID)},
			Header{headerDate, e.Date.UTC().AppendFormat(nil, time.RFC3339Nano)})
	}
	return record
}

// EventOf reads a record that Event.Record returned, without parsing the event
// itself: Identify sets Type, and also LogID and Date if they were unknown when the
// record was written. If headers are missing, as in a record of another program,
// the tenant is the record's key and FetchedAt its time.
func EventOf(r *Record) Event {
	event := Event{Tenant: r.Header(headerTenant), FetchedAt: r.Time, LogID: r.Header(headerLogID), Raw: r.Value}

	// Records of other programs may lack the headers.
	if event.Tenant == "" {
		event.Tenant = string(r.Key)
	}
	if event.Source = Source(r.Header(headerSource)); event.Source == "" {
		event.Source = SourceTail
	}

	// A header that is not a time counts as missing.
	if fetchedAt, ok := r.time(headerFetchedAt); ok {
		event.FetchedAt = fetchedAt
	}
	if date, ok := r.time(headerDate); ok && event.LogID != "" {
		event.Date = date
	}

	return event
}

// The reasons why an event cannot be stored.
var (
	ErrNotObject = errors.New("not a JSON object")
	ErrNoID      = errors.New("neither log_id nor _id is a string")
	ErrNoDate    = errors.New("neither date nor log_id has a time between 1970 and 2261")
)

// Identify sets LogID, Type and Date from Raw. Without a valid date it uses the time in
// the log_id, which never changes either. An error is one of the reasons above, or has the
// position at which the JSON is invalid; such an event is a dead letter.
func (e *Event) Identify() error {
	var row Row
	if err := row.parse(e.Raw, false); err != nil {
		return err
	}
	e.LogID, e.Type, e.Date = row.LogID, row.Type, row.Date
	return nil
}

// dateLayout is the form in which Auth0 writes event times.
const dateLayout = "2006-01-02T15:04:05.000Z"

// idPrefix is the prefix of every log_id.
const idPrefix = "900"

const (
	idLayout = "20060102150405"
	idDigits = 56
)

// IDTime returns the time at which Auth0 stored the event with a log_id. The id consists of
// 900, the UTC time from year to second, and a fraction. It is not the event
// time, which can be some seconds earlier.
func IDTime(logID string) (time.Time, bool) {
	if len(logID) != idDigits || logID[:len(idPrefix)] != idPrefix {
		return time.Time{}, false
	}

	// Of the fraction, only the milliseconds mean the same in all generations of ids.
	digits := logID[len(idPrefix):]
	var parts [7]int // year, month, day, hour, minute, second, millisecond
	at := 0
	for i, width := range [...]int{4, 2, 2, 2, 2, 2, 3} {
		for range width {
			digit := digits[at] - '0'
			if digit > 9 {
				return time.Time{}, false
			}
			parts[i] = 10*parts[i] + int(digit)
			at++
		}
	}

	// time.Date normalizes the 30th of February to the 2nd of March: refuse such an id.
	stored := time.Date(parts[0], time.Month(parts[1]), parts[2], parts[3], parts[4], parts[5],
		parts[6]*int(time.Millisecond), time.UTC)
	_, month, day := stored.Date()
	if int(month) != parts[1] || day != parts[2] || parts[3] > 23 || parts[4] > 59 || parts[5] > 59 {
		return time.Time{}, false
	}
	return stored, true
}

// SyntheticID returns a log_id that is higher than those of all events stored before t, to the
// second. Auth0 accepts it as a checkpoint although no event has it.
func SyntheticID(t time.Time) string {
	// The fraction is 0, which is below that of any real id.
	return fmt.Sprintf("%s%s%039d", idPrefix, t.UTC().Format(idLayout), 0)
}
