package schema

import (
	"bytes"
	"errors"
)

// What is wrong with a text that cannot be split.
var (
	errNoArray   = errors.New("it does not begin with [")
	errCutOff    = errors.New("it ends too early")
	errTrailing  = errors.New("more text follows it")
	errSeparator = errors.New("there is no comma between two elements")
	errBrackets  = errors.New("its brackets do not match")
)

// byteOrderMark is what some programs write before a text.
var byteOrderMark = []byte("\xef\xbb\xbf")

// SplitArray cuts a JSON array into its elements without changing a byte of them;
// they share memory with the text, but not room to append. It looks at quotes and
// brackets only, so an element may be nested however deep, and one that is no JSON
// does not hide its neighbours: whoever reads the elements says what is wrong.
func SplitArray(text []byte) ([][]byte, error) {
	text = bytes.TrimPrefix(text, byteOrderMark)
	at := skipSpace(text, 0)
	if at == len(text) || text[at] != '[' {
		return nil, errNoArray
	}
	elements := make([][]byte, 0, 100)
	if at = skipSpace(text, at+1); at < len(text) && text[at] == ']' {
		at++
	} else {
		for more := true; more; {
			end, err := elementEnd(text, at)
			if err != nil {
				return nil, err
			}
			if end == len(text) {
				return nil, errCutOff
			}
			if element := bytes.TrimRight(text[at:end], jsonSpace); len(element) > 0 {
				elements = append(elements, element[:len(element):len(element)])
			}
			more = text[end] == ','
			at = skipSpace(text, end+1)
		}
	}
	if skipSpace(text, at) != len(text) {
		return nil, errTrailing
	}
	return elements, nil
}

// SplitItems cuts a text into its items: those of arrays, and objects that follow
// one another, with line breaks or without. Outside of arrays an item that is no
// JSON object ends with its line.
func SplitItems(text []byte) ([][]byte, error) {
	text = bytes.TrimPrefix(text, byteOrderMark)
	var items [][]byte
	objects := 0
	for at := skipSpace(text, 0); at < len(text); at = skipSpace(text, at) {
		end := lineEnd(text, at)
		switch text[at] {
		case '[':
			whole, err := valueEnd(text, at)
			if err != nil {
				return nil, err
			}
			elements, err := SplitArray(text[at:whole])
			if err != nil {
				return nil, err
			}
			for _, element := range elements {
				if element[0] == '{' {
					objects++
				}
			}
			items = append(items, elements...)
			at = whole
			continue
		case '{':
			if whole, err := valueEnd(text, at); err == nil {
				end = whole
				objects++
			} else if end == len(text) {
				return nil, err
			}
		}
		item := bytes.TrimRight(text[at:end], jsonSpace)
		items = append(items, item[:len(item):len(item)])
		at = end
	}
	if objects == 0 && len(items) > 0 {
		return nil, errors.New("no item is an object")
	}
	return items, nil
}

const jsonSpace = " \t\r\n"

func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t') {
		at++
	}
	return at
}

func lineEnd(text []byte, at int) int {
	if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
		return at + n
	}
	return len(text)
}

// elementEnd is where the comma or bracket behind an element of an array stands.
func elementEnd(text []byte, at int) (int, error) {
	end := at
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

// valueEnd is the end of an object or array. Open brackets are kept in one bit each.
func valueEnd(text []byte, at int) (int, error) {
	var open []uint64 // 1 for an object
	depth := 0
	for at < len(text) {
		switch c := text[at]; c {
		case '"':
			at = stringEnd(text, at)
			continue
		case '{', '[':
			if depth%64 == 0 {
				open = append(open[:depth/64], 0)
			}
			if c == '{' {
				open[depth/64] |= 1 << (depth % 64)
			}
			depth++
		case '}', ']':
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

// stringEnd is the end of a string, which is that of the text when it has none.
func stringEnd(text []byte, at int) int {
	for at++; at < len(text); {
		n := bytes.IndexByte(text[at:], '"')
		if n < 0 {
			return len(text)
		}
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
