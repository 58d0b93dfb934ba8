package schema

import (
	"bytes"
	"math"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Detail is those values of an event's details that have columns of their own: of the
// call to the Management API that the event tells of, or of the limit that was met.
// Of members that occur twice the first counts, as in ClickHouse's JSON functions.
type Detail struct {
	StatusCode    uint16 // details.response.statusCode, 0 when it is no number
	RequestMethod string // details.request.method
	RequestPath   string // details.request.path
	LimitBucket   string // details.limit.bucket
}

// The members of details in which they are.
const (
	requestDetail = iota
	responseDetail
	limitDetail
)

// detailNames are their names.
var detailNames = [...]string{requestDetail: "request", responseDetail: "response", limitDetail: "limit"}

// detailOf is the one above that has a quoted name, or noColumn.
func detailOf(quote []byte) int {
	for detail, name := range detailNames {
		if isName(quote, name) {
			return detail
		}
	}
	return noColumn
}

// isName reports whether a quoted text is a name, which may be written with escapes.
func isName(quote []byte, name string) bool {
	if string(quote[1:len(quote)-1]) == name {
		return true
	}
	return bytes.IndexByte(quote, '\\') >= 0 && text(quote) == name
}

// readDetail reads the values of an event that was read before, from its details, which
// are empty when it has none.
func (p *parser) readDetail(raw []byte, details string) Detail {
	var found [len(detailNames)][]byte
	memberOf := plainMember
	if p.plain {
		for _, m := range p.detail {
			if found[m.column] == nil {
				found[m.column] = raw[m.at:m.end]
			}
		}
	} else {
		memberOf = anyMember
		for i, name := range detailNames {
			found[i] = anyMember([]byte(details), name)
		}
	}

	var d Detail
	if request := found[requestDetail]; request != nil {
		d.RequestMethod, d.RequestPath = text(memberOf(request, "method")), text(memberOf(request, "path"))
	}
	if response := found[responseDetail]; response != nil {
		d.StatusCode = statusCode(memberOf(response, "statusCode"))
	}
	if limit := found[limitDetail]; limit != nil {
		d.LimitBucket = text(memberOf(limit, "bucket"))
	}
	return d
}

// plainMember is the value of an object's first member of a name, nil when it has
// none or is no object. The object is plain.
func plainMember(object []byte, name string) []byte {
	if object[0] != '{' {
		return nil
	}
	for at := plainFirst(object, 0); at >= 0 && object[at] != '}'; {
		nameEnd := plainString(object, at)
		value := plainColon(object, nameEnd)
		end := plainValue(object, value)
		if isName(object[at:nameEnd], name) {
			return object[value:end]
		}
		at = plainNext(object, end, '}')
	}
	return nil
}

// anyMember is plainMember for an object that need not be plain.
func anyMember(object []byte, name string) []byte {
	if len(object) == 0 || object[0] != '{' {
		return nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(object), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	_, err := dec.ReadToken()
	for err == nil && dec.PeekKind() == '"' {
		var token jsontext.Token
		if token, err = dec.ReadToken(); err != nil {
			break
		}
		same := token.String() == name
		var value jsontext.Value
		if value, err = dec.ReadValue(); err == nil && same {
			return slices.Clone(value)
		}
	}
	return nil
}

// text is a JSON string's, the value itself for other kinds, empty for null.
func text(value []byte) string {
	switch {
	case len(value) == 0 || string(value) == "null":
		return ""
	case value[0] != '"':
		return string(value)
	}
	unquoted, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		return "" // half a surrogate pair
	}
	return string(unquoted)
}

// statusCode is the whole part of a number, also of one in a string, as far as the
// column reaches.
func statusCode(value []byte) uint16 {
	number, err := strconv.ParseFloat(text(value), 64)
	if err != nil || !(number > 0 && number < 1<<64) {
		return 0
	}
	return uint16(min(number, math.MaxUint16))
}
