package schema

import (
	"bytes"
	"math"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Detail has the values of an event's details that have separate columns: those of a call
// to the Management API, or of a limit that was reached. Of a repeated member, the first
// counts, as in ClickHouse's JSON functions.
type Detail struct {
	StatusCode    uint16 // details.response.statusCode, 0 if it is not a number
	RequestMethod string // details.request.method
	RequestPath   string // details.request.path
	LimitBucket   string // details.limit.bucket
}

// The members of details that contain these values.
const (
	requestDetail = iota
	responseDetail
	limitDetail
)

// detailNames has the names of these members.
var detailNames = [...]string{requestDetail: "request", responseDetail: "response", limitDetail: "limit"}

// detailOf returns the index in detailNames of a quoted name, or noColumn.
func detailOf(quote []byte) int {
	for detail, name := range detailNames {
		if isName(quote, name) {
			return detail
		}
	}
	return noColumn
}

// isName reports whether a quoted text, which may contain escapes, is equal to a name.
func isName(quote []byte, name string) bool {
	if string(quote[1:len(quote)-1]) == name {
		return true
	}
	return bytes.IndexByte(quote, '\\') >= 0 && text(quote) == name
}

// readDetail returns the values of the event that the parser has read. details is the text of
// its details.
func (p *parser) readDetail(raw []byte, details string) Detail {
	var found [len(detailNames)][]byte
	memberOf := plainMember

	// readPlain has noted the members; otherwise find them with the decoder.
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

	var detail Detail
	if request := found[requestDetail]; request != nil {
		detail.RequestMethod = text(memberOf(request, "method"))
		detail.RequestPath = text(memberOf(request, "path"))
	}
	if response := found[responseDetail]; response != nil {
		detail.StatusCode = statusCode(memberOf(response, "statusCode"))
	}
	if limit := found[limitDetail]; limit != nil {
		detail.LimitBucket = text(memberOf(limit, "bucket"))
	}
	return detail
}

// plainMember returns the value of the first member with a name, or nil if the value is not
// an object or has no such member. The object must be plain.
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

// anyMember is plainMember for an object that is not plain.
func anyMember(object []byte, name string) []byte {
	if len(object) == 0 || object[0] != '{' {
		return nil
	}

	dec := jsontext.NewDecoder(bytes.NewReader(object),
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return nil
	}

	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return nil
		}
		isWanted := token.String() == name // before the next read, which changes the token

		value, err := dec.ReadValue()
		if err != nil {
			return nil
		}
		if isWanted {
			return slices.Clone(value)
		}
	}
	return nil
}

// text returns the text of a JSON string, the value as it is of other kinds, and an empty
// text for null.
func text(value []byte) string {
	switch {
	case len(value) == 0 || string(value) == "null":
		return ""
	case value[0] != '"':
		return string(value)
	}
	unquoted, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		return "" // the string contains half a surrogate pair
	}
	return string(unquoted)
}

// statusCode returns the whole part of a number, which may be in a string, up to the
// maximum of the column. It returns 0 for any other value.
func statusCode(value []byte) uint16 {
	number, err := strconv.ParseFloat(text(value), 64)
	if err != nil || !(number > 0 && number < 1<<64) {
		return 0
	}
	return uint16(min(number, math.MaxUint16))
}
