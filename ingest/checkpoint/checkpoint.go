package checkpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Checkpoint is the position of a chain. Kafka has acknowledged all events up to it.
//
// A checkpoint is also how a process requests work: the process that leads a tenant works
// on every chain of it that is marked as requested.
type Checkpoint struct {
	Tenant    string    `json:"tenant"`
	Chain     string    `json:"chain"`           // tail, backfill/PLAN/FROM or audit/NAME
	From      string    `json:"from,omitempty"`  // the chain starts after this log_id
	LogID     string    `json:"log_id"`          // resume after this one
	Until     string    `json:"until,omitempty"` // the chain ends with this one; the tail has no end
	Done      bool      `json:"done,omitempty"`  // the chain has reached its end
	Requested bool      `json:"order,omitempty"` // another process requests the chain; it is not started
	Events    uint64    `json:"events"`          // pulled by the chain, repeats included
	UpdatedAt time.Time `json:"updated_at"`      // by our clock

	// The tail only.

	Behind   string    `json:"behind,omitempty"`   // the overlap re-reads from here
	LiveFrom time.Time `json:"live_from,omitzero"` // the first start; events stored before it are backfill
	Backfill bool      `json:"backfill,omitempty"` // the tail itself still pulls events from before the first start
	Oldest   string    `json:"oldest,omitempty"`   // the first event that the tail pulled
	SeenAt   time.Time `json:"seen_at,omitzero"`   // when the tenant last had no more events, by its clock
	Domain   string    `json:"domain,omitempty"`   // host of the tenant's API
	Ahead    float64   `json:"ahead,omitempty"`    // lead of our clock over the tenant's in seconds; of audits too

	// Audits only.

	Repair bool   `json:"repair,omitempty"` // pull missing events
	Audit  *Tally `json:"audit,omitempty"`  // counts of the whole chain
	Hour   *Tally `json:"hour,omitempty"`   // counts of the hour of LogID
}

// Tally has the counts of an audit, for an hour or in all.
type Tally struct {
	From     string `json:"from,omitempty"` // the audited part of the hour starts after this log_id
	Expected uint64 `json:"expected"`       // events of the tenant
	Stored   uint64 `json:"stored"`         // of these, in ClickHouse
	Dead     uint64 `json:"dead"`           // of these, kept as dead letters
	Missing  uint64 `json:"missing"`        // of these, missing even after the audit
	Healed   uint64 `json:"healed"`         // events that were missing, and were pulled and stored
}

// Add adds another tally.
func (t *Tally) Add(o *Tally) {
	t.Expected += o.Expected
	t.Stored += o.Stored
	t.Dead += o.Dead
	t.Missing += o.Missing
	t.Healed += o.Healed
}

// ChainTail is the chain of a tenant's new events, from the first start on. The pull and the audits
// name the others.
const ChainTail = "tail"

// Key returns the key of its record.
func (c *Checkpoint) Key() string { return c.Tenant + "/" + c.Chain }

// Record returns the checkpoint as a record of the checkpoints topic. The tenant decides
// its partition, see TenantOf.
func (c *Checkpoint) Record() (schema.Record, error) {
	value, err := json.Marshal(c)
	if err != nil {
		return schema.Record{}, fmt.Errorf("checkpoint %s: %w", c.Key(), err)
	}
	return schema.Record{Key: []byte(c.Key()), Value: value}, nil
}

// TenantOf returns the tenant in the key of a checkpoint's record.
func TenantOf(key []byte) string {
	tenant, _, _ := strings.Cut(string(key), "/")
	return tenant
}

// Read reads a record of the checkpoints topic. A record without a value deletes
// the chain: then only Tenant, Chain and Done are set.
func Read(r *schema.Record) (Checkpoint, error) {
	var c Checkpoint
	if len(r.Value) == 0 {
		tenant, chain, _ := strings.Cut(string(r.Key), "/")
		return Checkpoint{Tenant: tenant, Chain: chain, Done: true}, nil
	}

	if err := json.Unmarshal(r.Value, &c); err != nil {
		return c, fmt.Errorf("checkpoint %q at offset %d of partition %d is damaged: %w",
			r.Key, r.Offset, r.Partition, err)
	}

	// The value must belong to its key.
	if key := c.Key(); key != string(r.Key) {
		return c, fmt.Errorf("checkpoint %q at offset %d of partition %d has the value of %q",
			r.Key, r.Offset, r.Partition, key)
	}
	return c, nil
}

// Set has the newest checkpoint of each chain.
type Set map[string]Checkpoint

// Of returns the checkpoint of a chain. ok is false before its first start.
func (s Set) Of(tenant, chain string) (_ Checkpoint, ok bool) {
	found, ok := s[tenant+"/"+chain]
	return found, ok
}

// ReadAll rebuilds the checkpoints from their topic. readAll calls its function for
// every record of the topic, in order. damaged is called for each checkpoint that cannot be
// used. The checkpoint before it counts, or none, so that events are pulled again rather
// than not at all.
func ReadAll(
	ctx context.Context, readAll func(context.Context, func(schema.Record) error) error, damaged func(error),
) (Set, error) {
	found := Set{}
	partition := map[string]int{}
	err := readAll(ctx, func(r schema.Record) error {
		checkpoint, err := Read(&r)
		if err != nil {
			damaged(err)
			return nil
		}

		// If partitions were added to the topic, a chain has records in two of them: the newer counts.
		key := checkpoint.Key()
		old, known := found[key]
		if known && partition[key] != r.Partition && old.UpdatedAt.After(checkpoint.UpdatedAt) {
			return nil
		}
		partition[key] = r.Partition

		// A record without a value deletes the chain.
		if len(r.Value) == 0 {
			delete(found, key)
			return nil
		}
		found[key] = checkpoint
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return found, nil
}
