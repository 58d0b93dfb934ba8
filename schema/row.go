package schema

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"
)

// Row is an event as the table events_stored holds it: stable members in
// columns of their own, details as its exact text and everything else, also
// what Auth0 will invent tomorrow, as exact text in Rest. From a Row the event
// can be rebuilt as equal JSON; the raw column of the view events does so.
//
// A member goes to its column only when its value is a string of valid Unicode,
// and then its bit in Members is set. Null, a number, half a surrogate pair or
// a repeated name stay in Rest, so nothing that a tenant's users control can
// make an insert fail or be told apart from what it was.
type Row struct {
	LogID   string
	Type    string
	Date    time.Time // UTC, milliseconds
	Members uint32    // bit i: the event has TextColumns[i], and its column has the whole value
	Texts   [len(TextColumns)]string
	Details string // JSON text; empty when there is none
	Rest    string // JSON object; empty when nothing is left
	Detail         // values of Details
}

// The columns that also have a field of their own in Row.
const (
	colID = iota // _id, as a copy of log_id
	colLogID
	colDate
	colType
	colTexts // from here on the column has the member's name and its text
)

// TextColumns are the members that have columns. Their order is the order of
// the bits in Members: it never changes, new ones come last.
var TextColumns = [...]string{"_id", "log_id", "date", "type",
	"tenant_name", "environment_name", "description", "client_id", "client_name", "connection", "connection_id",
	"ip", "client_ip", "user_id", "user_name", "identity_user_id", "user_agent", "hostname", "strategy",
	"strategy_type", "organization_id", "organization_name", "audience", "scope"}

// FirstText is the index in TextColumns and Row.Texts of the first column that
// simply has a member's text; those before it have fields of their own.
const FirstText = colTexts

// ParseRow makes the row of an event. Its texts are cut out of raw, which must not
// change as long as they are used. An error is a reason to keep the event as a
// dead letter: ErrNotObject, ErrNoID, ErrNoDate, or where its JSON is broken.
func ParseRow(raw []byte) (Row, error) {
	var r Row
	err := r.parse(raw, true)
	return r, err
}

// member is one name and value of an event, as its bytes stand. It has no pointers:
// there are many, and the garbage collector would look at each.
type member struct {
	nameAt, nameEnd int  // of the quoted name in the event
	at, end         int  // of the value
	column          int  // that the name has, or one of the two below
	twice           bool // the name occurs more than once
	done            bool // the value is wholly in a column
}

// What stands for a column in a member whose name has none.
const (
	noColumn      = -1
	detailsColumn = -2
)

// parser is what parse needs again and again.
type parser struct {
	dec     *jsontext.Decoder
	buf     bytes.Buffer
	members []member
	details []member // of the details, those that have columns, in a plain event
	plain   bool     // the event is plain
	unicode bool     // read takes valid Unicode only, as nearly all events are
	scratch []byte
}

var parsers = sync.Pool{New: func() any {
	p := &parser{}
	p.dec = jsontext.NewDecoder(&p.buf, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return p
}}

// parse fills the row; without columns, only LogID, Type and Date.
func (r *Row) parse(raw []byte, columns bool) error {
	p := parsers.Get().(*parser)
	defer func() {
		p.buf = bytes.Buffer{} // do not keep the event alive
		parsers.Put(p)
	}()
	p.unicode = true
	if !p.readPlain(raw) {
		if err := p.read(raw); err != nil {
			p.unicode = false
			if err := p.read(raw); err != nil {
				return err
			}
		}
	}
	whole := "" // of which texts are cut
	if columns {
		whole = unsafe.String(&raw[0], len(raw))
	}
	var found [len(TextColumns)]struct {
		*member
		text  string // the value, when it is a
		sound bool   // sound string
	}
	for i := range p.members {
		m := &p.members[i]
		if m.column < 0 || !columns && m.column >= colTexts {
			continue
		}
		f := &found[m.column]
		if f.member != nil {
			m.twice, f.twice = true, true
			continue // the first one counts
		}
		f.member = m
		if raw[m.at] == '"' {
			f.text, f.sound = p.soundText(raw, m, whole)
		}
	}

	// Identity: log_id, else _id, which are equal in every event seen.
	id, copyOf := &found[colLogID], &found[colID]
	switch {
	case id.sound && id.text != "":
		r.LogID = id.text
	case copyOf.sound && copyOf.text != "":
		r.LogID = copyOf.text
	default:
		return ErrNoID
	}
	for _, f := range [...]int{colLogID, colID} {
		if f := &found[f]; f.sound && !f.twice && f.text == r.LogID {
			f.done = true
		}
	}

	if f := &found[colType]; f.sound {
		r.Type, f.done = f.text, !f.twice
	}

	known := false
	if f := &found[colDate]; f.sound {
		if t, err := time.Parse(time.RFC3339Nano, f.text); err == nil && inRange(t) {
			r.Date, known = t.UTC().Truncate(time.Millisecond), true
			f.done = !f.twice && len(f.text) == len(dateLayout) && f.text[19] == '.' && f.text[23] == 'Z' // as dateLayout has them
		}
	}
	if !known {
		if r.Date, known = IDTime(r.LogID); !known || !inRange(r.Date) {
			return ErrNoDate
		}
	}
	if !columns {
		return nil
	}

	for col := range found {
		f := &found[col]
		if f.member == nil {
			continue
		}
		if col >= colTexts && f.sound {
			r.Texts[col], f.done = f.text, !f.twice
		}
		if f.done {
			r.Members |= 1 << col
		}
		if TextColumns[col] == "scope" && raw[f.at] == '[' {
			r.Texts[col] = joined(raw[f.at:f.end]) // to be searched; the array itself stays in Rest
		}
	}
	r.split(p, whole)
	if r.Details != "" {
		r.Detail = p.detail(raw, r.Details)
	}
	return nil
}

// PlainDate reports whether the event's date is as Auth0 writes it, so that Date is
// all of it.
func (r *Row) PlainDate() bool { return r.Members&(1<<colDate) != 0 }

// KeepUnder gives the row another date, under which the event is kept already. Its own
// is not lost: it stays in Rest.
func (r *Row) KeepUnder(date time.Time) {
	if date.Equal(r.Date) {
		return
	}
	if r.PlainDate() {
		own := `{"date":"` + r.Date.Format(dateLayout) + `"`
		if r.Rest == "" {
			r.Rest = own + "}"
		} else {
			r.Rest = own + "," + r.Rest[1:]
		}
		r.Members &^= 1 << colDate
	}
	r.Date = date
}

// split fills Details and Rest from the members that have no column.
func (r *Row) split(p *parser, whole string) {
	var details *member
	for i := range p.members {
		m := &p.members[i]
		if m.column != detailsColumn {
			continue
		}
		if details != nil {
			details = nil // twice: both stay in Rest
			break
		}
		details = m
	}
	if details != nil {
		r.Details = whole[details.at:details.end]
		details.done = true
	}
	out := p.scratch[:0]
	for i := range p.members {
		m := &p.members[i]
		if m.done {
			continue
		}
		sep := byte(',')
		if len(out) == 0 {
			sep = '{'
		}
		out = append(append(append(append(out, sep), whole[m.nameAt:m.nameEnd]...), ':'), whole[m.at:m.end]...)
	}
	if len(out) > 0 {
		out = append(out, '}')
		r.Rest = string(out)
	}
	p.scratch = out
	if cap(out) > 1<<20 {
		p.scratch = nil
	}
}

// read splits an object into its members. Names may repeat, and text may be invalid
// Unicode unless only that is asked for; what is not JSON at all is an error.
func (p *parser) read(raw []byte) error {
	p.buf = *bytes.NewBuffer(raw)
	p.dec.Reset(&p.buf, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(!p.unicode))
	p.members = p.members[:0]
	if p.dec.PeekKind() != '{' {
		if _, err := p.dec.ReadValue(); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		return ErrNotObject
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	for more := p.dec.PeekKind() != '}'; more; {
		quote, err := p.dec.ReadValue()
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		m := member{nameEnd: int(p.dec.InputOffset())}
		m.nameAt = m.nameEnd - len(quote)
		m.column = columnOf(quote)
		value, err := p.dec.ReadValue()
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		m.end = int(p.dec.InputOffset())
		m.at = m.end - len(value)
		p.members = append(p.members, m)
		more = m.end < len(raw) && raw[m.end] == ',' || p.dec.PeekKind() != '}'
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if _, err := p.dec.ReadToken(); err != io.EOF {
		return fmt.Errorf("not JSON: more text after the object")
	}
	return nil
}

// soundText decodes a member's JSON string. It is sound when encoding it again
// gives the same characters, that is, when it is valid Unicode throughout. whole is
// the event to cut it out of, or empty for a copy.
func (p *parser) soundText(raw []byte, m *member, whole string) (string, bool) {
	value := raw[m.at:m.end]
	if bytes.IndexByte(value, '\\') < 0 {
		inner := value[1 : len(value)-1]
		switch {
		case !p.unicode && !utf8.Valid(inner):
			return "", false
		case whole != "":
			return whole[m.at+1 : m.end-1], true
		}
		return string(inner), true
	}
	var err error
	if p.scratch, err = jsontext.AppendUnquote(p.scratch[:0], value); err != nil {
		return "", false
	}
	return string(p.scratch), true
}

// inRange reports whether ClickHouse and Go agree on a time.
func inRange(t time.Time) bool { return t.Year() >= 1970 && t.Year() <= 2261 }

// joined is an array of strings as one text, as Auth0 itself writes scopes in
// some events. Members that are no strings are left out.
func joined(array []byte) string {
	var words []string
	dec := jsontext.NewDecoder(bytes.NewReader(array), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return ""
	}
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil {
			return ""
		}
		if v.Kind() != '"' {
			continue
		}
		if text, err := jsontext.AppendUnquote(nil, v); err == nil {
			words = append(words, string(text))
		}
	}
	return strings.Join(words, " ")
}

// columnOf is the column of a quoted name.
func columnOf(quote []byte) int {
	column := columnOfName(quote[1 : len(quote)-1])
	if column == noColumn && bytes.IndexByte(quote, '\\') >= 0 {
		if name, err := jsontext.AppendUnquote(nil, quote); err == nil { // else half a surrogate pair
			return columnOfName(name)
		}
	}
	return column
}

// columnOfName is TextColumns the other way round; a switch takes half as long as
// a map, and there are thirty names in an event.
func columnOfName(name []byte) int {
	switch string(name) {
	case "_id":
		return 0
	case "log_id":
		return 1
	case "date":
		return 2
	case "type":
		return 3
	case "tenant_name":
		return 4
	case "environment_name":
		return 5
	case "description":
		return 6
	case "client_id":
		return 7
	case "client_name":
		return 8
	case "connection":
		return 9
	case "connection_id":
		return 10
	case "ip":
		return 11
	case "client_ip":
		return 12
	case "user_id":
		return 13
	case "user_name":
		return 14
	case "identity_user_id":
		return 15
	case "user_agent":
		return 16
	case "hostname":
		return 17
	case "strategy":
		return 18
	case "strategy_type":
		return 19
	case "organization_id":
		return 20
	case "organization_name":
		return 21
	case "audience":
		return 22
	case "scope":
		return 23
	case "details":
		return detailsColumn
	}
	return noColumn
}
