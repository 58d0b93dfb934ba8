package ingest

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Block is rows of one month on their way into the table events_stored, column by
// column. ClickHouse takes a block as a whole or not at all; one of several
// months, and so of several partitions, it might take in part. One goroutine uses
// it at a time. Its memory is used again after Reset. It has room for 65,536 rows.
type Block struct {
	tenant, typ, source textColumn
	logID               plainColumn
	date, fetchedAt     *proto.ColDateTime64
	members             *proto.ColUInt32
	details, rest       textColumn
	statusCode          *proto.ColUInt16
	requestMethod       textColumn
	requestPath         textColumn
	limitBucket         textColumn
	texts               []textColumn // of schema.TextColumns, from schema.FirstText on

	rows   int
	oldest time.Time // when the first was pulled
	newest time.Time // date of the newest that is not in the future
}

// textColumn is a String or a LowCardinality(String).
type textColumn interface {
	proto.ColInput
	Append(string)
	Reset()
}

// plainColumn is a String as it goes over the wire, each value after its length:
// ch-go's own is copied once more to be sent, and the copy kept.
type plainColumn struct {
	wire []byte
	rows int
}

func (c *plainColumn) Append(v string) {
	c.wire = append(binary.AppendUvarint(c.wire, uint64(len(v))), v...)
	c.rows++
}

func (c *plainColumn) Type() proto.ColumnType       { return proto.ColumnTypeString }
func (c *plainColumn) Rows() int                    { return c.rows }
func (c *plainColumn) EncodeColumn(b *proto.Buffer) { b.PutRaw(c.wire) }
func (c *plainColumn) WriteColumn(w *proto.Writer)  { w.ChainWrite(c.wire) }
func (c *plainColumn) Reset()                       { c.wire, c.rows = c.wire[:0], 0 }

// values are the column's.
func (c *plainColumn) values() []string {
	list := make([]string, c.rows)
	rest := c.wire
	for i := range list {
		n, size := binary.Uvarint(rest)
		rest = rest[size:]
		list[i], rest = string(rest[:n]), rest[n:]
	}
	return list
}

// lowColumn has few values that come again and again. It encodes them as they
// come: ch-go's own keeps every row's text until the end.
type lowColumn struct {
	proto.ColLowCardinalityRaw
	values  []string       // in Index
	keys    map[string]int // of them
	lastKey int
}

func (c *lowColumn) Append(v string) {
	if c.lastKey >= len(c.values) || c.values[c.lastKey] != v { // very often it is the same again
		c.lastKey = c.key(v)
	}
	c.AppendKey(c.lastKey)
}

func (c *lowColumn) key(v string) int {
	key, ok := c.keys[v]
	if !ok {
		key = len(c.values)
		v = strings.Clone(v)
		c.values = append(c.values, v)
		c.keys[v] = key
		c.Index.(*proto.ColStr).Append(v)
	}
	return key
}

func (c *lowColumn) Reset() {
	clear(c.keys)
	clear(c.values)
	c.values = c.values[:0]
	c.ColLowCardinalityRaw.Reset()
}

func plainText() textColumn { return new(plainColumn) }

func lowText() textColumn {
	return &lowColumn{ColLowCardinalityRaw: proto.ColLowCardinalityRaw{Index: new(proto.ColStr), Key: proto.KeyUInt16}, keys: map[string]int{}}
}

// NewBlock returns an empty block.
func NewBlock() *Block {
	moment := func() *proto.ColDateTime64 {
		return new(proto.ColDateTime64).WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
	}
	b := &Block{tenant: lowText(), typ: lowText(), source: lowText(), date: moment(), fetchedAt: moment(),
		members: new(proto.ColUInt32), details: plainText(), rest: plainText(),
		statusCode: new(proto.ColUInt16), requestMethod: lowText(), requestPath: lowText(), limitBucket: lowText()}
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
	in := proto.Input{{Name: "tenant", Data: b.tenant}, {Name: "date", Data: b.date}, {Name: "type", Data: b.typ}, {Name: "log_id", Data: &b.logID},
		{Name: "members", Data: b.members}, {Name: "source", Data: b.source}, {Name: "fetched_at", Data: b.fetchedAt},
		{Name: "details", Data: b.details}, {Name: "rest", Data: b.rest},
		{Name: "status_code", Data: b.statusCode}, {Name: "request_method", Data: b.requestMethod},
		{Name: "request_path", Data: b.requestPath}, {Name: "limit_bucket", Data: b.limitBucket}}
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
	b.statusCode.Append(row.StatusCode)
	b.requestMethod.Append(row.RequestMethod)
	b.requestPath.Append(row.RequestPath)
	b.limitBucket.Append(row.LimitBucket)
	for i, col := range b.texts {
		col.Append(row.Texts[schema.FirstText+i])
	}
	if b.rows == 0 {
		b.oldest = e.FetchedAt
	}
	if row.Date.After(b.newest) && row.Date.Before(e.FetchedAt.Add(time.Hour)) {
		b.newest = row.Date
	}
	b.rows++
}

// LogIDs are those of the rows.
func (b *Block) LogIDs() []string { return b.logID.values() }

// Reset empties the block.
func (b *Block) Reset() {
	for _, col := range b.input() {
		col.Data.(interface{ Reset() }).Reset()
	}
	b.rows, b.oldest, b.newest = 0, time.Time{}, time.Time{}
}
