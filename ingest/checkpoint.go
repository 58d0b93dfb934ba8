package ingest

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
// on every chain of it that is marked as requested. See BackfillRequest and AuditRequest.
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

// The chains of a tenant, beside chainLow.
const (
	ChainTail     = "tail"      // from the first start on
	chainBackfill = "backfill/" // slices of the past, in parallel
	chainAudit    = "audit/"    // comparisons with ClickHouse
)

func (c *Checkpoint) key() string { return c.Tenant + "/" + c.Chain }

// Record returns the checkpoint as a record of the checkpoints topic. The tenant decides
// its partition, see TenantOf.
func (c *Checkpoint) Record() (schema.Record, error) {
	value, err := json.Marshal(c)
	if err != nil {
		return schema.Record{}, fmt.Errorf("checkpoint %s: %w", c.key(), err)
	}
	return schema.Record{Key: []byte(c.key()), Value: value}, nil
}

// TenantOf returns the tenant in the key of a checkpoint's record.
func TenantOf(key []byte) string {
	tenant, _, _ := strings.Cut(string(key), "/")
	return tenant
}

// ReadCheckpoint reads a record of the checkpoints topic. A record without a value deletes
// the chain: then only Tenant, Chain and Done are set.
func ReadCheckpoint(r *schema.Record) (Checkpoint, error) {
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
	if key := c.key(); key != string(r.Key) {
		return c, fmt.Errorf("checkpoint %q at offset %d of partition %d has the value of %q",
			r.Key, r.Offset, r.Partition, key)
	}
	return c, nil
}

// Checkpoints has the newest checkpoint of each chain.
type Checkpoints map[string]Checkpoint

// Of returns the checkpoint of a chain. ok is false before its first start.
func (c Checkpoints) Of(tenant, chain string) (_ Checkpoint, ok bool) {
	found, ok := c[tenant+"/"+chain]
	return found, ok
}

// ReadCheckpoints rebuilds the checkpoints from their topic. readAll calls its function for
// every record of the topic, in order. damaged is called for each checkpoint that cannot be
// used. The checkpoint before it counts, or none, so that events are pulled again rather
// than not at all.
func ReadCheckpoints(
	ctx context.Context, readAll func(context.Context, func(schema.Record) error) error, damaged func(error),
) (Checkpoints, error) {
	found := Checkpoints{}
	partition := map[string]int{}
	err := readAll(ctx, func(r schema.Record) error {
		checkpoint, err := ReadCheckpoint(&r)
		if err != nil {
			damaged(err)
			return nil
		}

		// If partitions were added to the topic, a chain has records in two of them: the newer counts.
		key := checkpoint.key()
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
