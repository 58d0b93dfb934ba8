package ingest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/zeebo/xxh3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Block is rows of one month on their way into the table events_stored, column by
// column. ClickHouse takes a block as a whole or not at all; one of several
// months, and so of several partitions, it might take in part. One goroutine uses
// it at a time. Its memory is used again after Reset.
type Block struct {
	tenant, typ, logID, source textColumn
	date, fetchedAt            *proto.ColDateTime64
	members                    *proto.ColUInt32
	details, rest              textColumn
	texts                      []textColumn // of schema.TextColumns, from schema.FirstText on

	rows   int
	sum    xxh3.Uint128 // of the rows' identities, whatever their order
	oldest time.Time    // when the first was pulled
	newest time.Time    // date of the newest that is not in the future
}

// textColumn is a String or a LowCardinality(String).
type textColumn interface {
	proto.ColInput
	Append(string)
	Reset()
}

// lowColumn has few values that come again and again. They are kept once: those of
// the rows would keep the rows' whole text alive.
type lowColumn struct {
	*proto.ColLowCardinality[string]
	values map[string]string
}

// mostValues is how many values a lowColumn keeps over a Reset.
const mostValues = 10_000

func (c *lowColumn) Append(v string) {
	kept, ok := c.values[v]
	if !ok {
		kept = string([]byte(v))
		c.values[kept] = kept
	}
	c.ColLowCardinality.Append(kept)
}

func (c *lowColumn) Reset() {
	if len(c.values) > mostValues {
		clear(c.values)
	}
	c.ColLowCardinality.Reset()
}

func plainText() textColumn { return new(proto.ColStr) }

func lowText() textColumn {
	return &lowColumn{new(proto.ColStr).LowCardinality(), map[string]string{}}
}

// NewBlock returns an empty block.
func NewBlock() *Block {
	moment := func() *proto.ColDateTime64 {
		return new(proto.ColDateTime64).WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
	}
	b := &Block{tenant: lowText(), typ: lowText(), logID: plainText(), source: lowText(), date: moment(), fetchedAt: moment(),
		members: new(proto.ColUInt32), details: plainText(), rest: plainText()}
	for _, name := range schema.TextColumns[schema.FirstText:] {
		switch name { // values that are nearly as many as events, see the migrations
		case "description", "ip", "client_ip", "user_id", "user_name", "identity_user_id":
			b.texts = append(b.texts, plainText())
		default:
			b.texts = append(b.texts, lowText())
		}
	}
	return b
}

func (b *Block) input() proto.Input {
	in := proto.Input{{Name: "tenant", Data: b.tenant}, {Name: "date", Data: b.date}, {Name: "type", Data: b.typ}, {Name: "log_id", Data: b.logID},
		{Name: "members", Data: b.members}, {Name: "source", Data: b.source}, {Name: "fetched_at", Data: b.fetchedAt},
		{Name: "details", Data: b.details}, {Name: "rest", Data: b.rest}}
	for i, col := range b.texts {
		in = append(in, proto.InputColumn{Name: schema.TextColumns[schema.FirstText+i], Data: col})
	}
	return in
}

// Add adds an event and its row. Nothing of them is kept.
func (b *Block) Add(e *schema.Event, row *schema.Row) {
	b.tenant.Append(e.Tenant)
	b.date.Append(row.Date)
	b.typ.Append(row.Type)
	b.logID.Append(row.LogID)
	b.members.Append(row.Members)
	b.source.Append(string(e.Source))
	b.fetchedAt.Append(e.FetchedAt)
	b.details.Append(row.Details)
	b.rest.Append(row.Rest)
	for i, col := range b.texts {
		col.Append(row.Texts[schema.FirstText+i])
	}
	if b.rows == 0 {
		b.oldest = e.FetchedAt
	}
	if row.Date.After(b.newest) && row.Date.Before(e.FetchedAt.Add(time.Hour)) {
		b.newest = row.Date
	}
	h := xxh3.HashString128Seed(row.LogID, xxh3.HashString(e.Tenant))
	b.sum.Lo += h.Lo
	b.sum.Hi += h.Hi
	b.rows++
}

// Rows is how many there are.
func (b *Block) Rows() int { return b.rows }

// LogIDs are those of the rows.
func (b *Block) LogIDs() []string {
	ids := make([]string, b.rows)
	for i := range ids {
		ids[i] = b.logID.(*proto.ColStr).Row(i)
	}
	return ids
}

// Reset empties the block.
func (b *Block) Reset() {
	for _, col := range b.input() {
		col.Data.(interface{ Reset() }).Reset()
	}
	b.rows, b.sum, b.oldest, b.newest = 0, xxh3.Uint128{}, time.Time{}, time.Time{}
}

// digest tells blocks of different rows apart.
func (b *Block) digest() string {
	var sum [16]byte
	binary.BigEndian.PutUint64(sum[:8], b.sum.Hi)
	binary.BigEndian.PutUint64(sum[8:], b.sum.Lo)
	return fmt.Sprintf("%d:%s", b.rows, hex.EncodeToString(sum[:]))
}
