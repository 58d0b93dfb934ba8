package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Checkpoint is where a chain stands. Everything that it covers has been acked
// by Kafka. It is also how work is asked for: whoever leads a tenant takes up a
// chain of it that another process has begun, see NewBackfill and NewAudit.
type Checkpoint struct {
	Tenant    string    `json:"tenant"`
	Chain     string    `json:"chain"`           // tail, backfill/PLAN/FROM or audit/NAME
	From      string    `json:"from,omitempty"`  // it began after this log_id
	LogID     string    `json:"log_id"`          // go on after this one
	Until     string    `json:"until,omitempty"` // and no further than this one; the tail has no end
	Done      bool      `json:"done,omitempty"`  // it has come to its end
	Order     bool      `json:"order,omitempty"` // another process asks for it; nobody has begun with it
	Events    uint64    `json:"events"`          // that the chain has pulled, repeats included
	UpdatedAt time.Time `json:"updated_at"`      // by our clock

	// Of the tail only.

	Behind   string    `json:"behind,omitempty"`   // re-read from here on for events that showed up late
	LiveFrom time.Time `json:"live_from,omitzero"` // the first start: what was stored before it is backfill
	Backfill bool      `json:"backfill,omitempty"` // the tail itself is still at what was there at the first start
	Oldest   string    `json:"oldest,omitempty"`   // the first event that it pulled
	SeenAt   time.Time `json:"seen_at,omitzero"`   // when the tenant last had nothing more, by its clock
	Domain   string    `json:"domain,omitempty"`   // where the tenant is called
	Ahead    float64   `json:"ahead,omitempty"`    // how many seconds our clock is ahead of the tenant's; of audits too

	// Of audits only.

	Repair bool   `json:"repair,omitempty"` // what is missing is pulled
	Audit  *Tally `json:"audit,omitempty"`  // all that it has counted
	Hour   *Tally `json:"hour,omitempty"`   // of this, the hour at LogID
}

// The chains of a tenant.
const (
	ChainTail     = "tail"      // from the first start on, see also chainLow
	chainBackfill = "backfill/" // stretches of the past, side by side
	chainAudit    = "audit/"    // looks at what is kept
)

func (c *Checkpoint) key() string { return c.Tenant + "/" + c.Chain }

// Record is the checkpoint as the checkpoints topic carries it. Its partition
// follows from the tenant, see TenantOf.
func (c *Checkpoint) Record() (schema.Record, error) {
	value, err := json.Marshal(c)
	if err != nil {
		return schema.Record{}, fmt.Errorf("checkpoint %s: %w", c.key(), err)
	}
	return schema.Record{Key: []byte(c.key()), Value: value}, nil
}

// TenantOf is the tenant in the key of a checkpoint's record.
func TenantOf(key []byte) string {
	tenant, _, _ := strings.Cut(string(key), "/")
	return tenant
}

// ReadCheckpoint reads back what Checkpoint.Record wrote. A record without a
// value takes the chain away: then only the tenant and the chain are filled in.
func ReadCheckpoint(r *schema.Record) (Checkpoint, error) {
	var c Checkpoint
	if len(r.Value) == 0 {
		tenant, chain, _ := strings.Cut(string(r.Key), "/")
		return Checkpoint{Tenant: tenant, Chain: chain, Done: true}, nil
	}
	if err := json.Unmarshal(r.Value, &c); err != nil {
		return c, fmt.Errorf("checkpoint %q at offset %d of partition %d is damaged: %w", r.Key, r.Offset, r.Partition, err)
	}
	if key := c.key(); key != string(r.Key) {
		return c, fmt.Errorf("checkpoint %q at offset %d of partition %d is another one's, %q", r.Key, r.Offset, r.Partition, key)
	}
	return c, nil
}

// Checkpoints are the chains' newest checkpoints by tenant and chain.
type Checkpoints map[string]Checkpoint

// Of returns a chain's checkpoint; ok is false at its first start.
func (c Checkpoints) Of(tenant, chain string) (_ Checkpoint, ok bool) {
	found, ok := c[tenant+"/"+chain]
	return found, ok
}

// ReadCheckpoints rebuilds the checkpoints from their topic. readAll calls yield
// for every record that the topic holds, in order. damaged hears of each checkpoint
// that cannot be used: the one before it counts, or none, so that events are pulled
// once more rather than not at all.
func ReadCheckpoints(ctx context.Context, readAll func(context.Context, func(schema.Record) error) error, damaged func(error)) (Checkpoints, error) {
	found := Checkpoints{}
	partition := map[string]int{}
	err := readAll(ctx, func(r schema.Record) error {
		c, err := ReadCheckpoint(&r)
		if err != nil {
			damaged(err)
			return nil
		}
		key := c.key()
		if old, known := found[key]; known && partition[key] != r.Partition && old.UpdatedAt.After(c.UpdatedAt) {
			return nil // the topic has got more partitions since
		}
		partition[key] = r.Partition
		if len(r.Value) == 0 {
			delete(found, key)
			return nil
		}
		found[key] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return found, nil
}
