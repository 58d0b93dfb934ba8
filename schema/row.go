package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"
)

// Row is an event in the form of the table events_stored: stable members in
// separate columns, details as its exact text, and everything else, including
// members that Auth0 may add, as exact text in Rest. The event can be rebuilt from
// a Row as equal JSON; the column raw of the view events does so.
//
// A member is stored in its column only if its value is a string of valid Unicode;
// then its bit in Members is set. Null, a number, half a surrogate pair or
// a repeated name stay in Rest. So nothing that a tenant's users control can
// make an insert fail or lose a distinction.
type Row struct {
	LogID   string
	Type    string
	Date    time.Time // UTC, milliseconds
	Members uint32    // bit i: the event has Columns[i], and its column has the whole value
	Texts   [len(Columns)]string
	Details string // JSON text; empty if there are none
	Rest    string // JSON object; empty if nothing is left
	Detail         // values of Details
}

// ParseRow returns the row of an event. Its texts are parts of raw, which must not
// change while they are in use. An error is a reason to keep the event as a
// dead letter: ErrNotObject, ErrNoID, ErrNoDate, or the position at which the JSON is invalid.
func ParseRow(raw []byte) (Row, error) {
	var row Row
	err := row.parse(raw, true)
	return row, err
}

// member is one name and value of an event, by position. It has no pointers:
// there are many members, and the garbage collector would scan each.
type member struct {
	nameAt, nameEnd int  // of the quoted name in the event
	at, end         int  // of the value
	column          int  // of the name, or one of the two below
	twice           bool // the name occurs more than once
	done            bool // the whole value is in a column
}

// parser is the reusable state of parse.
type parser struct {
	dec     *jsontext.Decoder
	buf     bytes.Buffer
	members []member
	detail  []member // members of the details that have columns, if the event is plain
	plain   bool     // readPlain has read the event
	unicode bool     // read accepts valid Unicode only; nearly all events are valid
	scratch []byte
}

var parsers = sync.Pool{New: func() any {
	p := &parser{}
	p.dec = jsontext.NewDecoder(&p.buf, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return p
}}

// columnValue is the member of a column in an event.
type columnValue struct {
	*member
	text  string // the value, if it is a
	sound bool   // sound string; see soundText
}

// columnValues are the members of all columns.
type columnValues [len(Columns)]columnValue

// parse fills the row; without columns, only LogID, Type and Date.
func (r *Row) parse(raw []byte, columns bool) error {
	p := parsers.Get().(*parser)
	defer func() {
		p.buf = bytes.Buffer{} // do not keep the event alive
		parsers.Put(p)
	}()

	// Nearly all events are plain. The decoder reads the others: first it accepts valid Unicode only,
	// so that no text needs to be checked later; the few that have invalid text are read again.
	p.unicode = true
	if !p.readPlain(raw) {
		if err := p.read(raw); err != nil {
			p.unicode = false
			if err := p.read(raw); err != nil {
				return err
			}
		}
	}

	whole := "" // the event, of which texts are parts
	if columns {
		whole = unsafe.String(&raw[0], len(raw))
	}

	var found columnValues
	p.collect(raw, whole, columns, &found)

	if err := r.identify(&found); err != nil {
		return err
	}
	if !columns {
		return nil
	}

	// Store each text in its column, and note the columns that have the whole value.
	for col := range found {
		value := &found[col]
		if value.member == nil {
			continue
		}
		if col >= FirstText && value.sound {
			r.Texts[col], value.done = value.text, !value.twice
		}
		if value.done {
			r.Members |= 1 << col
		}

		// An array of scopes is joined for searches; the array itself stays in Rest.
		if Columns[col].Name == "scope" && raw[value.at] == '[' {
			r.Texts[col] = joined(raw[value.at:value.end])
		}
	}

	r.split(p, whole)
	if r.Details != "" {
		r.Detail = p.readDetail(raw, r.Details)
	}
	return nil
}

// collect finds the members that have a column; without columns, only those that identify the event.
func (p *parser) collect(raw []byte, whole string, columns bool, found *columnValues) {
	for i := range p.members {
		m := &p.members[i]
		if m.column < 0 || !columns && m.column >= FirstText {
			continue
		}
		value := &found[m.column]
		if value.member != nil {
			// Of a repeated name, the first counts; both stay in Rest.
			m.twice, value.twice = true, true
			continue
		}
		value.member = m
		if raw[m.at] == '"' {
			value.text, value.sound = p.soundText(raw, m, whole)
		}
	}
}

// identify sets LogID, Type and Date.
func (r *Row) identify(found *columnValues) error {
	// The id is log_id or else _id: in every event seen, they are equal.
	id, copyOf := &found[colLogID], &found[colID]
	switch {
	case id.sound && id.text != "":
		r.LogID = id.text
	case copyOf.sound && copyOf.text != "":
		r.LogID = copyOf.text
	default:
		return ErrNoID
	}

	for _, col := range [...]int{colLogID, colID} {
		if value := &found[col]; value.sound && !value.twice && value.text == r.LogID {
			value.done = true
		}
	}

	if value := &found[colType]; value.sound {
		r.Type, value.done = value.text, !value.twice
	}

	// The date is in its column only if it can be rebuilt from there, in dateLayout.
	known := false
	if value := &found[colDate]; value.sound {
		if date, err := time.Parse(time.RFC3339Nano, value.text); err == nil && inRange(date) {
			r.Date, known = date.UTC().Truncate(time.Millisecond), true
			isLayout := len(value.text) == len(dateLayout) && value.text[19] == '.' && value.text[23] == 'Z'
			value.done = !value.twice && isLayout
		}
	}

	// Without a valid date, the time in the id is used: it never changes either.
	if !known {
		if r.Date, known = IDTime(r.LogID); !known || !inRange(r.Date) {
			return ErrNoDate
		}
	}
	return nil
}

// PlainDate reports whether the event has its date in Auth0's form, so that Date has
// all of it.
func (r *Row) PlainDate() bool { return r.Members&(1<<colDate) != 0 }

// KeepUnder gives the row another date, with which the event is stored already. Its own
// date is not lost: it is moved to Rest.
func (r *Row) KeepUnder(date time.Time) {
	if date.Equal(r.Date) {
		return
	}
	if r.PlainDate() {
		// Rest is an object: insert the date as its first member.
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

// split fills Details and Rest from the members that are not in a column.
func (r *Row) split(p *parser, whole string) {
	if details := p.onlyDetails(); details != nil {
		r.Details = whole[details.at:details.end]
		details.done = true
	}

	out := p.scratch[:0]

	// Copy the other members as they are, so that Rest has their exact text.
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

	// An exceptionally large event must not keep its memory forever.
	p.scratch = out
	if cap(out) > 1<<20 {
		p.scratch = nil
	}
}

// onlyDetails returns the member details, or nil if there are none or several: then all stay in Rest.
func (p *parser) onlyDetails() *member {
	var details *member
	for i := range p.members {
		m := &p.members[i]
		if m.column != detailsColumn {
			continue
		}
		if details != nil {
			return nil
		}
		details = m
	}
	return details
}

// read splits an object into its members. Names may repeat. Text may be invalid
// Unicode unless p.unicode is set. Invalid JSON is an error.
func (p *parser) read(raw []byte) error {
	p.buf = *bytes.NewBuffer(raw)
	p.dec.Reset(&p.buf, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(!p.unicode))
	p.members = p.members[:0]

	// Tell valid JSON that is not an object from a broken text.
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
		// The decoder's offset is the end of what it has read.
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

		// A comma right after the value is the common case, and quicker to see than to peek.
		more = m.end < len(raw) && raw[m.end] == ',' || p.dec.PeekKind() != '}'
	}

	// The closing bracket, and nothing after it.
	if _, err := p.dec.ReadToken(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if _, err := p.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("not JSON: more text after the object")
	}
	return nil
}

// soundText decodes a member's JSON string. It is sound if encoding it again
// gives the same characters, that is, if all of it is valid Unicode. whole is
// the event, of which the text becomes a part, or empty for a copy.
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

	// Escapes must be resolved into a copy. Half a surrogate pair is an error.
	var err error
	if p.scratch, err = jsontext.AppendUnquote(p.scratch[:0], value); err != nil {
		return "", false
	}
	return string(p.scratch), true
}

// inRange reports whether both ClickHouse and Go can represent a time.
func inRange(t time.Time) bool { return t.Year() >= 1970 && t.Year() <= 2261 }

// joined returns an array of strings as one text, as Auth0 itself writes scopes in
// some events. Members that are not strings are left out.
func joined(array []byte) string {
	var words []string
	dec := jsontext.NewDecoder(bytes.NewReader(array),
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return ""
	}

	for dec.PeekKind() != ']' {
		value, err := dec.ReadValue()
		if err != nil {
			return ""
		}
		if value.Kind() != '"' {
			continue
		}
		if text, err := jsontext.AppendUnquote(nil, value); err == nil {
			words = append(words, string(text))
		}
	}

	return strings.Join(words, " ")
}

// columnOf returns the column of a quoted name.
func columnOf(quote []byte) int {
	column := columnOfName(quote[1 : len(quote)-1])
	if column != noColumn || bytes.IndexByte(quote, '\\') < 0 {
		return column
	}

	// The name has escapes; if one is half a surrogate pair, it has no column.
	name, err := jsontext.AppendUnquote(nil, quote)
	if err != nil {
		return noColumn
	}
	return columnOfName(name)
}
