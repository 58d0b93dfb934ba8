package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Status is the outcome of loading a document.
type Status string

// The statuses of documents.
const (
	StatusEnabled  Status = "enabled"
	StatusTuned    Status = "tuned"    // enabled, as changed by an overlay
	StatusWaiting  Status = "waiting"  // valid, but needs a variable from the user first
	StatusDisabled Status = "disabled" // by an overlay, or because it serves nothing that runs
	StatusRefused  Status = "refused"  // cannot be evaluated
	StatusReplaced Status = "replaced" // by a document with the same id in a later source, or by an overlay

	StatusOtherSource Status = "other log source" // for another product than Auth0; see Settings.AllLogSources
)

// Report lists the outcome of every document, in the order read.
type Report struct {
	Documents []Document
}

// Document is the outcome of one document, or of a file that could not be read.
type Document struct {
	File     string
	Line     int
	Kind     string // detection, correlation, filter or overlay; empty if unknown
	ID       string
	Name     string // by which correlations and filters refer to it; may be empty
	Title    string
	Status   Status
	Reason   string // why it does not run, with file and line where known, or how it was tuned
	Warnings []string
}

// Runs reports whether the document takes effect.
func (d *Document) Runs() bool { return d.Status == StatusEnabled || d.Status == StatusTuned }

// Position splits the line off a Reason or Warning that begins with a position in the document's
// file. The line is 0 if it has none.
func (d *Document) Position(text string) (line int, rest string) {
	line = errorLine(errors.New(text), d.File)
	if line == 0 || d.File == "" {
		return 0, text
	}
	rest = strings.TrimPrefix(text, fmt.Sprintf("%s:%d: ", d.File, line))
	return line, strings.TrimPrefix(rest, d.File+": ")
}

// warn adds a warning.
func (d *Document) warn(format string, args ...any) {
	d.Warnings = append(d.Warnings, fmt.Sprintf(format, args...))
}

// Count returns the number of documents that have one of the given statuses.
func (r *Report) Count(statuses ...Status) int {
	n := 0
	for _, doc := range r.Documents {
		if slices.Contains(statuses, doc.Status) {
			n++
		}
	}
	return n
}

// maxReason bounds the reason reported for a document, in bytes: it may quote the document.
const maxReason = 1000

// reason returns the text of an error, or the beginning and the end of a long one.
func reason(err error) string {
	text := err.Error()
	if len(text) <= maxReason {
		return text
	}

	half := maxReason / 2
	return strings.ToValidUTF8(text[:half], "") + " … " + strings.ToValidUTF8(text[len(text)-half:], "")
}

// errorLine returns the line in an error that begins with the file's name, or 0.
func errorLine(err error, file string) int {
	text := strings.TrimPrefix(err.Error(), file)
	for _, form := range []string{":%d:", ": yaml: line %d:"} {
		line := 0
		if _, err := fmt.Sscanf(text, form, &line); err == nil {
			return line
		}
	}
	return 0
}
