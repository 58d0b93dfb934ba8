package lint

import (
	"fmt"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules"
)

// Severity is how serious a finding is.
type Severity string

// The severities of findings.
const (
	SeverityError   Severity = "error"   // the rule does not do what it says
	SeverityWarning Severity = "warning" // it hardly does what was meant
	SeverityInfo    Severity = "info"    // something that readers would want to know is missing
)

// AtLeast reports whether the severity is at least another one.
func (s Severity) AtLeast(other Severity) bool {
	order := []Severity{SeverityInfo, SeverityWarning, SeverityError}
	return slices.Index(order, s) >= slices.Index(order, other)
}

// Finding is something about a rule that is wrong or deserves a look.
type Finding struct {
	Severity Severity
	Check    string // name of the check, such as type
	File     string
	Line     int    // 0 if unknown
	ID       string // of the document
	Title    string // of the document
	Text     string
}

// found returns a finding about a document.
func found(p *rules.Parsed, severity Severity, line int, format string, args ...any) Finding {
	return Finding{Severity: severity, File: p.File, Line: line, ID: p.ID, Title: p.Title,
		Text: fmt.Sprintf(format, args...)}
}
