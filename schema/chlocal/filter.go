package chlocal

import (
	"errors"
	"io"
	"regexp"
)

// The reader of one tenant must not call functions that bypass its row policy. file() needs no grant and reads
// the files of the tables, with the rows of all tenants; Landlock cannot help, for the engine itself has to
// read them. The functions mergeTree… show keys of all rows. The text of a query passes here unencoded, over
// both protocols: a name that may be a call of such a function ends the connection. The filter is cautious
// rather than exact: it also refuses "the file (1)" in a text.

var errFileFunction = errors.New("the reader of one tenant cannot call file() and mergeTree…(), " +
	"nor write \\x in a text; to look for these words in a text, write 'fil' || 'e'")

// fileFunction matches such a name with what may stand between it and its parenthesis: a closing quote, white
// space (also that of Unicode), and the start of a comment. Its last alternative matches a letter as an escape
// within quotes.
var fileFunction = regexp.MustCompile("(?i)(?:^|[^a-z0-9_])(?:file|mergeTree[a-z]*)[\"`]?" +
	"[\\s\\x00-\\x20\\x7f-\\xff\\x{80}-\\x{10ffff}]*(?:[(/#]|--)|\\\\x")

func mentionsFileFunction(text string) bool { return fileFunction.MatchString(text) }

// fileFilter passes on a client's bytes, and returns errFileFunction before those that complete a mention of
// such a function.
type fileFilter struct {
	r    io.Reader
	tail []byte // the end of the bytes so far, with each run of blanks replaced by one
}

// mentionLength is the number of earlier bytes to keep: with its blanks replaced, a mention is shorter.
const mentionLength = 64

var blanks = regexp.MustCompile(`[\s\x00-\x20\x7f-\xff\x{80}-\x{10ffff}]+`)

func (f *fileFilter) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n == 0 {
		return n, err
	}

	// A mention may be split over several reads.
	f.tail = append(f.tail, p[:n]...)
	if fileFunction.Match(f.tail) {
		return 0, errFileFunction
	}

	f.tail = blanks.ReplaceAll(f.tail, []byte(" "))
	if extra := len(f.tail) - mentionLength; extra > 0 {
		f.tail = append(f.tail[:0], f.tail[extra:]...)
	}
	return n, err
}
