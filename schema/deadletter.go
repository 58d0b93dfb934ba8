package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// DeadLetter is a record that was pulled but cannot be stored, with the reason.
type DeadLetter struct {
	Tenant    string
	ID        string // SHA-256 of Raw, since it may have no log_id
	Source    Source
	FetchedAt time.Time
	Reason    string
	Raw       []byte // as received
	Retried   bool   // it was given to the writer again; then there is no Raw
}

// DeadLetterID returns the ID of a record as received.
func DeadLetterID(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// NewDeadLetter returns the dead letter for an event that Identify or ParseRow refused.
func NewDeadLetter(e *Event, reason error) DeadLetter {
	return DeadLetter{Tenant: e.Tenant, ID: DeadLetterID(e.Raw), Source: e.Source,
		FetchedAt: e.FetchedAt, Reason: reason.Error(), Raw: e.Raw}
}

// Record returns the record of the deadletter topic: the value has the bytes as
// received, the headers have the rest.
func (d *DeadLetter) Record() Record {
	return Record{Key: []byte(d.Tenant), Value: d.Raw, Headers: []Header{
		{headerTenant, []byte(d.Tenant)},
		{headerSource, []byte(d.Source)},
		{headerFetchedAt, d.FetchedAt.UTC().AppendFormat(nil, time.RFC3339Nano)},
		{headerID, []byte(d.ID)},
		{headerReason, []byte(d.Reason)},
	}}
}

// RetriedRecord returns the record of the deadletter topic that says that the writer has it again.
func (d *DeadLetter) RetriedRecord() Record {
	// No value: the bytes are no longer needed here.
	return Record{Key: []byte(d.Tenant), Headers: []Header{
		{headerTenant, []byte(d.Tenant)},
		{headerID, []byte(d.ID)},
		{headerRetried, []byte("true")},
	}}
}

// DeadLetterOf reads a record that DeadLetter.Record or RetriedRecord returned.
func DeadLetterOf(r *Record) DeadLetter {
	event := EventOf(r) // which has the same headers
	return DeadLetter{Tenant: event.Tenant, ID: r.Header(headerID), Source: event.Source, FetchedAt: event.FetchedAt,
		Reason: r.Header(headerReason), Raw: r.Value, Retried: r.Header(headerRetried) != ""}
}
