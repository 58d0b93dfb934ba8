package write

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Block has rows of one month for the table events_stored, in columns. ClickHouse inserts
// a block completely or not at all; it might insert only a part of a block with several
// months, that is, several partitions. One goroutine may use a block at a time. Reset makes
// its memory reusable. It has space for 65,536 rows.
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
	texts               []textColumn // of schema.Columns, from schema.FirstText on

	rows   int
	oldest time.Time // when the first row was pulled
	newest time.Time // date of the newest row that is not in the future
}

// textColumn is a String or a LowCardinality(String).
type textColumn interface {
	proto.ColInput
	Append(string)
	Reset()
}

// plainColumn is a String in its wire format, each value after its length. The column of
// ch-go would be copied once more when it is sent, and the copy kept.
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

// values decodes the values of the column.
func (c *plainColumn) values() []string {
	// Each value is its length as a varint, and its bytes.
	list := make([]string, c.rows)
	rest := c.wire
	for i := range list {
		length, size := binary.Uvarint(rest)
		rest = rest[size:]
		list[i], rest = string(rest[:length]), rest[length:]
	}
	return list
}

// lowColumn is a LowCardinality(String): it has few distinct values. It encodes each value
// at once; the column of ch-go keeps the text of every row until the end.
type lowColumn struct {
	proto.ColLowCardinalityRaw
	values  []string       // distinct, in the order of Index
	keys    map[string]int // positions in values
	lastKey int
}

func (c *lowColumn) Append(v string) {
	// Very often a value is the same as the one before.
	if c.lastKey >= len(c.values) || c.values[c.lastKey] != v {
		c.lastKey = c.key(v)
	}
	c.AppendKey(c.lastKey)
}

// key returns the position of a value, which it adds if it is new.
func (c *lowColumn) key(v string) int {
	key, ok := c.keys[v]
	if !ok {
		key = len(c.values)
		v = strings.Clone(v) // do not keep the event alive
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
	raw := proto.ColLowCardinalityRaw{Index: new(proto.ColStr), Key: proto.KeyUInt16}
	return &lowColumn{ColLowCardinalityRaw: raw, keys: map[string]int{}}
}

// NewBlock returns an empty block.
func NewBlock() *Block {
	moment := func() *proto.ColDateTime64 {
		return new(proto.ColDateTime64).WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
	}
	block := &Block{
		tenant: lowText(), typ: lowText(), source: lowText(), date: moment(), fetchedAt: moment(),
		members: new(proto.ColUInt32), details: plainText(), rest: plainText(),
		statusCode: new(proto.ColUInt16), requestMethod: lowText(), requestPath: lowText(), limitBucket: lowText(),
	}

	for _, column := range schema.Columns[schema.FirstText:] {
		if column.Few {
			block.texts = append(block.texts, lowText())
		} else {
			block.texts = append(block.texts, plainText())
		}
	}
	return block
}

// input returns the columns under their names.
func (b *Block) input() proto.Input {
	input := proto.Input{
		{Name: "tenant", Data: b.tenant},
		{Name: "date", Data: b.date},
		{Name: "type", Data: b.typ},
		{Name: "log_id", Data: &b.logID},
		{Name: "members", Data: b.members},
		{Name: "source", Data: b.source},
		{Name: "fetched_at", Data: b.fetchedAt},
		{Name: "details", Data: b.details},
		{Name: "rest", Data: b.rest},
		{Name: "status_code", Data: b.statusCode},
		{Name: "request_method", Data: b.requestMethod},
		{Name: "request_path", Data: b.requestPath},
		{Name: "limit_bucket", Data: b.limitBucket},
	}
	for i, column := range b.texts {
		input = append(input, proto.InputColumn{Name: schema.Columns[schema.FirstText+i].Name, Data: column})
	}
	return input
}

// Add appends an event and its row. It copies both.
func (b *Block) Add(event *schema.Event, row *schema.Row) {
	b.tenant.Append(event.Tenant)
	b.date.Append(row.Date)
	b.typ.Append(row.Type)
	b.logID.Append(row.LogID)
	b.members.Append(row.Members)
	b.source.Append(string(event.Source))
	b.fetchedAt.Append(event.FetchedAt)

	b.details.Append(row.Details)
	b.rest.Append(row.Rest)
	b.statusCode.Append(row.StatusCode)
	b.requestMethod.Append(row.RequestMethod)
	b.requestPath.Append(row.RequestPath)
	b.limitBucket.Append(row.LimitBucket)
	for i, column := range b.texts {
		column.Append(row.Texts[schema.FirstText+i])
	}

	// A date that is far after the pull is wrong.
	if b.rows == 0 {
		b.oldest = event.FetchedAt
	}
	if row.Date.After(b.newest) && row.Date.Before(event.FetchedAt.Add(time.Hour)) {
		b.newest = row.Date
	}
	b.rows++
}

// LogIDs returns the log_ids of the rows.
func (b *Block) LogIDs() []string { return b.logID.values() }

// Reset empties the block and keeps its memory.
func (b *Block) Reset() {
	for _, column := range b.input() {
		column.Data.(interface{ Reset() }).Reset()
	}
	b.rows, b.oldest, b.newest = 0, time.Time{}, time.Time{}
}
