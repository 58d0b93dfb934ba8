package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// DeadLetter is something that was pulled but cannot be stored, with the reason.
type DeadLetter struct {
	Tenant    string
	ID        string // its SHA-256: what has no log_id is known by its bytes
	Source    Source
	FetchedAt time.Time
	Reason    string
	Raw       []byte // as received
	Retried   bool   // it was handed to the writer again; then there is no Raw
}

// DeadLetterID is the ID of what was received.
func DeadLetterID(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// NewDeadLetter is for an event that Identify or ParseRow refused.
func NewDeadLetter(e *Event, reason error) DeadLetter {
	return DeadLetter{Tenant: e.Tenant, ID: DeadLetterID(e.Raw), Source: e.Source,
		FetchedAt: e.FetchedAt, Reason: reason.Error(), Raw: e.Raw}
}

// Record is the dead letter as the deadletter topic carries it: the value is
// the bytes as received, the rest is in headers.
func (d *DeadLetter) Record() Record {
	return Record{Key: []byte(d.Tenant), Value: d.Raw, Headers: []Header{
		{headerTenant, []byte(d.Tenant)},
		{headerSource, []byte(d.Source)},
		{headerFetchedAt, d.FetchedAt.UTC().AppendFormat(nil, time.RFC3339Nano)},
		{headerID, []byte(d.ID)},
		{headerReason, []byte(d.Reason)},
	}}
}

// RetriedRecord notes in the deadletter topic that the writer got it again.
func (d *DeadLetter) RetriedRecord() Record {
	return Record{Key: []byte(d.Tenant), Headers: []Header{
		{headerTenant, []byte(d.Tenant)},
		{headerID, []byte(d.ID)},
		{headerRetried, []byte("true")},
	}}
}

// DeadLetterOf reads back what DeadLetter.Record or RetriedRecord wrote.
func DeadLetterOf(r *Record) DeadLetter {
	e := EventOf(r)
	return DeadLetter{Tenant: e.Tenant, ID: r.Header(headerID), Source: e.Source, FetchedAt: e.FetchedAt,
		Reason: r.Header(headerReason), Raw: r.Value, Retried: r.Header(headerRetried) != ""}
}
