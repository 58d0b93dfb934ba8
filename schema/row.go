package schema

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

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

// ParseRow makes the row of an event. An error is a reason to keep the event as
// a dead letter: ErrNotObject, ErrNoID, ErrNoDate, or where its JSON is broken.
func ParseRow(raw []byte) (Row, error) {
	var r Row
	err := r.parse(raw, true)
	return r, err
}

// member is one name and value of an event, as its bytes stand.
type member struct {
	name  []byte // unquoted
	quote []byte // quoted, as received
	value []byte
	at    int    // of the value in the event
	text  string // the value, when it is a sound string
	sound bool
	twice bool // the name occurs more than once
	done  bool // the value is wholly in a column
}

// parser is what parse needs again and again.
type parser struct {
	dec     *jsontext.Decoder
	buf     bytes.Buffer
	members []member
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
		clear(p.members)
		parsers.Put(p)
	}()
	if err := p.read(raw); err != nil {
		return err
	}
	whole := "" // texts are cut out of one copy of the event
	if columns {
		whole = string(raw)
	}
	var texts [len(TextColumns)]*member
	for i := range p.members {
		m := &p.members[i]
		col := columnOf(m.name)
		if col < 0 || !columns && col >= colTexts {
			continue
		}
		if texts[col] != nil {
			m.twice, texts[col].twice = true, true
			continue // the first one counts
		}
		texts[col] = m
		if m.value[0] == '"' {
			m.text, m.sound = p.soundText(m, whole)
		}
	}

	// Identity: log_id, else _id, which are equal in every event seen.
	id, copyOf := texts[colLogID], texts[colID]
	switch {
	case id != nil && id.sound && id.text != "":
		r.LogID = id.text
	case copyOf != nil && copyOf.sound && copyOf.text != "":
		r.LogID = copyOf.text
	default:
		return ErrNoID
	}
	for _, m := range [...]*member{id, copyOf} {
		if m != nil && m.sound && !m.twice && m.text == r.LogID {
			m.done = true
		}
	}

	if m := texts[colType]; m != nil && m.sound {
		r.Type, m.done = m.text, !m.twice
	}

	known := false
	if m := texts[colDate]; m != nil && m.sound {
		if t, err := time.Parse(time.RFC3339Nano, m.text); err == nil && inRange(t) {
			r.Date, known = t.UTC().Truncate(time.Millisecond), true
			m.done = !m.twice && m.text == r.Date.Format(dateLayout)
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

	for col, m := range texts {
		if m == nil {
			continue
		}
		if col >= colTexts && m.sound {
			r.Texts[col], m.done = m.text, !m.twice
		}
		if m.done {
			r.Members |= 1 << col
		}
		if TextColumns[col] == "scope" && m.value[0] == '[' {
			r.Texts[col] = joined(m.value) // to be searched; the array itself stays in Rest
		}
	}
	r.split(p, whole)
	return nil
}

// split fills Details and Rest from the members that have no column.
func (r *Row) split(p *parser, whole string) {
	details := -1
	for i := range p.members {
		if string(p.members[i].name) == "details" {
			if details >= 0 {
				details = -1 // twice: both stay in Rest
				break
			}
			details = i
		}
	}
	if details >= 0 {
		m := &p.members[details]
		r.Details = whole[m.at : m.at+len(m.value)]
		p.members[details].done = true
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
		out = append(append(append(append(out, sep), m.quote...), ':'), m.value...)
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

// read splits an object into its members. Names may repeat and text may be
// invalid Unicode; what is not JSON at all is an error.
func (p *parser) read(raw []byte) error {
	p.buf = *bytes.NewBuffer(raw)
	p.dec.Reset(&p.buf, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
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
	for p.dec.PeekKind() != '}' {
		quote, err := p.dec.ReadValue()
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		m := member{quote: raw[p.dec.InputOffset()-int64(len(quote)) : p.dec.InputOffset()]}
		value, err := p.dec.ReadValue()
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		end := p.dec.InputOffset()
		m.at = int(end) - len(value)
		m.value = raw[m.at:end]
		if bytes.IndexByte(m.quote, '\\') < 0 {
			m.name = m.quote[1 : len(m.quote)-1]
		} else if m.name, err = jsontext.AppendUnquote(nil, m.quote); err != nil {
			m.name = nil // half a surrogate pair: no name that has a column
		}
		p.members = append(p.members, m)
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if _, err := p.dec.ReadToken(); err != io.EOF {
		return fmt.Errorf("not JSON: more text after the object")
	}
	return nil
}

// soundText decodes a JSON string. It is sound when encoding it again gives the
// same characters, that is, when it is valid Unicode throughout. whole is a copy
// of the event to cut it out of, or empty.
func (p *parser) soundText(m *member, whole string) (string, bool) {
	if bytes.IndexByte(m.value, '\\') < 0 {
		inner := m.value[1 : len(m.value)-1]
		switch {
		case !utf8.Valid(inner):
			return "", false
		case whole != "":
			return whole[m.at+1 : m.at+len(m.value)-1], true
		}
		return string(inner), true
	}
	var err error
	if p.scratch, err = jsontext.AppendUnquote(p.scratch[:0], m.value); err != nil {
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

func columnOf(name []byte) int {
	for i, c := range TextColumns {
		if string(name) == c {
			return i
		}
	}
	return -1
}
