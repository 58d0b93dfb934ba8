package schema

import (
	"bytes"
	"errors"
)

// The errors of a text that cannot be split.
var (
	errNoArray   = errors.New("it does not begin with [")
	errCutOff    = errors.New("it ends too early")
	errTrailing  = errors.New("more text follows it")
	errSeparator = errors.New("there is no comma between two elements")
	errBrackets  = errors.New("its brackets do not match")
)

// byteOrderMark is written by some programs at the start of a text.
var byteOrderMark = []byte("\xef\xbb\xbf")

// SplitArray splits a JSON array into its elements without changing them. The elements
// share memory with the text, but their capacity ends with their length. SplitArray only
// looks at quotes and brackets: an element may be nested to any depth, and one that is not
// valid JSON does not affect its neighbors. The reader of the elements reports the error.
func SplitArray(text []byte) ([][]byte, error) {
	text = bytes.TrimPrefix(text, byteOrderMark)
	at := skipSpace(text, 0)
	if at == len(text) || text[at] != '[' {
		return nil, errNoArray
	}

	// A page of the API has up to 100 events.
	elements := make([][]byte, 0, 100)
	at = skipSpace(text, at+1)
	more := true
	if at < len(text) && text[at] == ']' {
		at++
		more = false
	}

	for more {
		end, err := elementEnd(text, at)
		if err != nil {
			return nil, err
		}
		if end == len(text) {
			return nil, errCutOff
		}

		// Empty elements, as after a last comma, are ignored.
		if element := bytes.TrimRight(text[at:end], jsonSpace); len(element) > 0 {
			elements = append(elements, element[:len(element):len(element)])
		}

		more = text[end] == ','
		at = skipSpace(text, end+1)
	}

	if skipSpace(text, at) != len(text) {
		return nil, errTrailing
	}
	return elements, nil
}

// SplitItems splits a text into its items: the elements of arrays, and objects that follow
// one another, with or without line breaks. Outside of arrays, an item that is not a
// JSON object ends at the end of its line.
func SplitItems(text []byte) ([][]byte, error) {
	text = bytes.TrimPrefix(text, byteOrderMark)
	var items [][]byte
	objects := 0
	for at := skipSpace(text, 0); at < len(text); at = skipSpace(text, at) {
		// By default, an item is a line.
		end := lineEnd(text, at)
		switch text[at] {
		case '[':
			arrayEnd, err := valueEnd(text, at)
			if err != nil {
				return nil, err
			}
			elements, err := SplitArray(text[at:arrayEnd])
			if err != nil {
				return nil, err
			}
			for _, element := range elements {
				if element[0] == '{' {
					objects++
				}
			}
			items = append(items, elements...)
			at = arrayEnd
			continue
		case '{':
			// A broken object ends with its line, unless that is the last: it is cut off.
			objectEnd, err := valueEnd(text, at)
			if err != nil && end == len(text) {
				return nil, err
			}
			if err == nil {
				end = objectEnd
				objects++
			}
		}

		item := bytes.TrimRight(text[at:end], jsonSpace)
		items = append(items, item[:len(item):len(item)])
		at = end
	}

	// A text without any object is probably not meant to be a list of events.
	if objects == 0 && len(items) > 0 {
		return nil, errors.New("no item is an object")
	}
	return items, nil
}

const jsonSpace = " \t\r\n"

// skipSpace returns the index of the next byte that is not white space.
func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t') {
		at++
	}
	return at
}

// lineEnd returns the index of the next line break, or the end of the text.
func lineEnd(text []byte, at int) int {
	if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
		return at + n
	}
	return len(text)
}

// elementEnd returns the index of the comma or bracket after an element of an array.
func elementEnd(text []byte, at int) (int, error) {
	end := at

	// A container ends with its own bracket, which a delimiter must follow.
	if at < len(text) && (text[at] == '{' || text[at] == '[') {
		var err error
		if end, err = valueEnd(text, at); err != nil {
			return 0, err
		}
		end = skipSpace(text, end)
		if end < len(text) && text[end] != ',' && text[end] != ']' {
			return 0, errSeparator
		}
		return end, nil
	}

	// A scalar: strings may contain any of the delimiters.
	for end < len(text) {
		switch text[end] {
		case ',', ']':
			return end, nil
		case '{', '}', '[':
			return 0, errSeparator
		case '"':
			end = stringEnd(text, end)
		default:
			end++
		}
	}

	return end, nil
}

// valueEnd returns the end of an object or array. It keeps one bit for each open bracket.
func valueEnd(text []byte, at int) (int, error) {
	var open []uint64 // a bit is 1 for an object, 0 for an array
	depth := 0
	for at < len(text) {
		switch c := text[at]; c {
		case '"':
			at = stringEnd(text, at)
			continue
		case '{', '[':
			// A word has the bits of 64 brackets.
			if depth%64 == 0 {
				open = append(open[:depth/64], 0)
			}
			if c == '{' {
				open[depth/64] |= 1 << (depth % 64)
			}
			depth++
		case '}', ']':
			// The bracket must close one of its kind.
			depth--
			if object := open[depth/64]>>(depth%64)&1 == 1; object != (c == '}') {
				return 0, errBrackets
			}
			open[depth/64] &^= 1 << (depth % 64)
			if depth == 0 {
				return at + 1, nil
			}
		}

		at++
	}

	return 0, errCutOff
}

// stringEnd returns the end of a string, or that of the text if the string does not end.
func stringEnd(text []byte, at int) int {
	for at++; at < len(text); {
		n := bytes.IndexByte(text[at:], '"')
		if n < 0 {
			return len(text)
		}

		// A quote after an odd number of backslashes is escaped.
		quote := at + n
		backslashes := 0
		for quote-1-backslashes >= at && text[quote-1-backslashes] == '\\' {
			backslashes++
		}

		if at = quote + 1; backslashes%2 == 0 {
			return at
		}
	}

	return len(text)
}
