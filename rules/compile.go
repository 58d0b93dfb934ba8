package rules

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// compile runs compileOne over the documents of a kind and records their outcomes.
func (l *loader) compile(kind string, compileOne func(*document) error) {
	for _, doc := range l.docs {
		if doc.kind != kind || l.skip(doc) {
			continue
		}

		// The report names the overlay: a user may look for the error in the rule itself.
		report, overlay := l.reports[doc], doc.overlay
		err := compileOne(doc)
		switch {
		case err != nil:
			if overlay != nil {
				err = fmt.Errorf("%w (as changed by %s)", err, overlay.position())
			}
			l.errs[doc] = err
			report.Status, report.Reason = statusOf(err), reason(err)
		case overlay != nil:
			report.Status = StatusTuned
			report.Reason = strings.TrimSuffix("by "+overlay.position()+": "+overlay.reason, ": ")
		default:
			report.Status = StatusEnabled
		}
	}
}

// skip reports whether a document is not to be compiled, and records why.
func (l *loader) skip(doc *document) bool {
	report, overlay := l.reports[doc], doc.overlay
	switch {
	case doc.replacedBy != nil && overlay != nil && overlay.replacedBy != "":
		report.Status, report.Reason = StatusReplaced, fmt.Sprintf("by %s: %s", doc.replacedBy.file, overlay.reason)
	case doc.replacedBy != nil:
		report.Status, report.Reason = StatusReplaced, "by "+doc.replacedBy.file
	case overlay != nil && overlay.off:
		report.Status, report.Reason = StatusDisabled, overlay.position()+": "+overlay.reason
		l.errs[doc] = errors.New("it is disabled")
	case doc.kind != kindCorrelation && !l.all && doc.product() != "" && !doc.forAuth0():
		l.errs[doc] = otherSource(doc.product())
		report.Status, report.Reason = StatusOtherSource, l.errs[doc].Error()
	default:
		return false
	}
	return true
}

// statusOf returns the status of a document that failed to compile.
func statusOf(err error) Status {
	// The cause of a correlation's failure may be one of the rules that it counts.
	if other := otherSource(""); errors.As(err, &other) {
		return StatusOtherSource
	}
	if missing := (missingVars)(nil); errors.As(err, &missing) {
		return StatusWaiting
	}
	return StatusRefused
}

// otherSource is the error of a rule that is for another product than Auth0; its value is the product.
type otherSource string

func (e otherSource) Error() string {
	return fmt.Sprintf("it is for product %s, not for Auth0; "+
		"to run it, set --all-log-sources or TENANTWATCH_ALL_LOG_SOURCES=true", string(e))
}

// docVars returns the variables that apply to a document. The user's take precedence over the
// overlay's for this rule, those over the overlays' for all rules, those over the document's own.
func (l *loader) docVars(doc *document) (Vars, error) {
	vars := Vars{}
	if node := doc.keys[keyVars]; node != nil {
		var err error
		if vars, err = readVars(node); err != nil {
			return nil, doc.errorf(node, "%s.%w", keyVars, err)
		}
	}

	// Each copy overwrites the variables before it.
	maps.Copy(vars, l.overlays.vars)
	if doc.overlay != nil {
		maps.Copy(vars, doc.overlay.vars)
	}

	maps.Copy(vars, l.vars)
	return vars, nil
}

// detection compiles a detection document.
func (l *loader) detection(doc *document) error {
	rule, err := doc.rule()
	if err != nil {
		return err
	}
	vars, err := l.docVars(doc)
	if err != nil {
		return err
	}
	if rule.Level == "" {
		rule.Level = DefaultLevel
	}

	// Keep warnings even if the detection is refused.
	match, warnings, err := compileDetection(doc, doc.keys["detection"], l.fields, vars)
	l.reports[doc].Warnings = append(l.reports[doc].Warnings, warnings...)
	if err != nil {
		return err
	}

	// An event must also satisfy every filter of the detection.
	if filters := l.filters[doc]; len(filters) > 0 {
		match = expr.And(append([]*expr.Tree{match}, filters...))
	}

	rule.Match = match
	if types := match.Types(); types != nil {
		rule.Types = []string{}
		for _, pattern := range types {
			rule.Types = append(rule.Types, pattern.String())
		}
	}

	// A detection that only serves correlations does not alert.
	if l.alerts(doc) {
		if rule.Alert, err = doc.alert(rule, l.fields, nil, 1); err != nil {
			return err
		}
	}

	l.rules[doc] = rule
	l.order = append(l.order, rule)
	return nil
}
