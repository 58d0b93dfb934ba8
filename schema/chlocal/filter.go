package chlocal

import (
	"errors"
	"io"
	"regexp"
)

// The reader of one tenant must not call functions that go around its row policy.
// file() needs no grant and reads the files of the tables, where the rows of all
// tenants are; Landlock cannot help, for the engine itself has to read them. The
// functions mergeTree… show keys of all rows. The text of a query passes here as it
// is, over both protocols: a name that may be a call of such a function ends the
// connection. It is cautious rather than exact: "the file (1)" in a text is refused
// too.

var errFileFunction = errors.New("the reader of one tenant cannot call file() and mergeTree…(), nor write \\x in a text; " +
	"to look for these words in a text, write 'fil' || 'e'")

// fileFunction is such a name with what may stand between it and its parenthesis: a
// closing quote, white space, also that of Unicode, and the beginning of a comment.
// The second part is a letter as an escape within quotes.
var fileFunction = regexp.MustCompile("(?i)(?:^|[^a-z0-9_])(?:file|mergeTree[a-z]*)[\"`]?[\\s\\x00-\\x20\\x7f-\\xff\\x{80}-\\x{10ffff}]*(?:[(/#]|--)|\\\\x")

func mentionsFileFunction(text string) bool { return fileFunction.MatchString(text) }

// fileFilter reads a client's bytes and ends with errFileFunction before those that
// complete a mention of the function are passed on.
type fileFilter struct {
	r    io.Reader
	tail []byte // the end of what was read before, with runs of blanks cut to one
}

// mentionLength is what is kept of earlier reads: a mention is shorter, once its
// blanks are cut.
const mentionLength = 64

var blanks = regexp.MustCompile(`[\s\x00-\x20\x7f-\xff\x{80}-\x{10ffff}]+`)

func (f *fileFilter) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n == 0 {
		return n, err
	}
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
