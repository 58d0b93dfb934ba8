package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Checkpoint is where a pull chain stands. Everything that it covers has been
// acked by Kafka.
type Checkpoint struct {
	Tenant    string    `json:"tenant"`
	Chain     string    `json:"chain"`
	LogID     string    `json:"log_id"`     // go on after this one
	Behind    string    `json:"behind"`     // re-read from here on for events that showed up late
	LiveFrom  time.Time `json:"live_from"`  // the first start: what was stored before it is backfill
	Backfill  bool      `json:"backfill"`   // the backfill is not done yet
	Oldest    string    `json:"oldest"`     // the first event that was pulled
	Events    uint64    `json:"events"`     // that the chain has pulled, repeats included
	UpdatedAt time.Time `json:"updated_at"` // by our clock
}

// ChainTail is the chain from the oldest event to the newest and on.
const ChainTail = "tail"

func (c *Checkpoint) key() string { return c.Tenant + "/" + c.Chain }

// Record is the checkpoint as the checkpoints topic carries it.
func (c *Checkpoint) Record() (schema.Record, error) {
	value, err := json.Marshal(c)
	if err != nil {
		return schema.Record{}, fmt.Errorf("checkpoint %s: %w", c.key(), err)
	}
	return schema.Record{Key: []byte(c.key()), Value: value}, nil
}

// Checkpoints are the chains' newest checkpoints by tenant and chain.
type Checkpoints map[string]Checkpoint

// Of returns a chain's checkpoint; ok is false at its first start.
func (c Checkpoints) Of(tenant, chain string) (_ Checkpoint, ok bool) {
	found, ok := c[tenant+"/"+chain]
	return found, ok
}

// ReadCheckpoints rebuilds the checkpoints from their topic. readAll calls yield
// for every record that the topic holds, in order.
func ReadCheckpoints(ctx context.Context, readAll func(context.Context, func(schema.Record) error) error) (Checkpoints, error) {
	found := Checkpoints{}
	err := readAll(ctx, func(r schema.Record) error {
		if len(r.Value) == 0 { // a tombstone
			delete(found, string(r.Key))
			return nil
		}
		var c Checkpoint
		if err := json.Unmarshal(r.Value, &c); err != nil {
			return fmt.Errorf("checkpoint %q at offset %d: %w", r.Key, r.Offset, err)
		}
		found[c.key()] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return found, nil
}
