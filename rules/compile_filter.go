package rules

import (
	"cmp"
	"slices"
	"strings"
)

// filter compiles a filter document and adds it to the detections that it names. They then
// match only where both their own condition and the filter's hold.
func (l *loader) filter(doc *document) error {
	if doc.title == "" {
		return doc.errorf(nil, "title is missing")
	}
	node := doc.keys["filter"]
	entries, err := mapping(node)
	if err != nil {
		return doc.errorf(node, "filter: %w", err)
	}

	// The detections that the filter applies to.
	var names []string
	for _, entry := range entries {
		if entry.key == "rules" {
			if names, err = texts(entry.value); err != nil {
				return doc.errorf(entry.value, "filter.rules: %w", err)
			}
		}
	}

	if len(names) == 0 {
		return doc.errorf(node, "filter.rules is missing")
	}
	targets, err := l.targets(doc, names)
	if err != nil {
		return err
	}

	vars, err := l.docVars(doc)
	if err != nil {
		return err
	}

	// The condition is compiled like a detection; "rules" is not a search identifier.
	match, warnings, err := compileDetection(doc, node, l.fields, vars, "rules")
	l.reports[doc].Warnings = append(l.reports[doc].Warnings, warnings...)
	if err != nil {
		return err
	}

	// Copy the root: it may be a search identifier, which has its own name.
	added := *match
	added.Filter = doc.title
	for _, target := range targets {
		l.filters[target] = append(l.filters[target], &added)
	}

	return nil
}

// targets returns the detections that a filter applies to: those it names with a log source
// that fits or, for "any", all with such a log source. A name that does not fit is a warning;
// if none fits, the first is an error.
func (l *loader) targets(doc *document, names []string) ([]*document, error) {
	var targets []*document
	if len(names) == 1 && names[0] == "any" {
		for _, target := range l.docs {
			if target.kind == kindDetection && target.replacedBy == nil && sameSource(doc, target) {
				targets = append(targets, target)
			}
		}
		return targets, nil
	}

	var first error

	// Check each name: it must be a detection with a log source that fits.
	for _, name := range names {
		target := l.find(doc, name)
		var err error
		switch {
		case target == nil:
			err = doc.errorf(doc.keys["filter"], "filter refers to %q, but no rule has that id or name", name)
		case target.kind != kindDetection:
			err = doc.errorf(doc.keys["filter"], "filter of the correlation %q: %w", name,
				notSupported("a filter of correlations"))
		case !sameSource(doc, target):
			err = doc.errorf(doc.keys["logsource"], "%q is a rule for another log source", name)
		case !slices.Contains(targets, target):
			targets = append(targets, target)
		}

		if err != nil {
			l.reports[doc].warn("%v", err)
			first = cmp.Or(first, err)
		}
	}

	if len(targets) == 0 {
		// The error says the same.
		l.reports[doc].Warnings = nil
		return nil, first
	}
	return targets, nil
}

// sameSource reports whether the detection's log source has every key of the filter's with the same value.
func sameSource(filter, detection *document) bool {
	want, _ := mapping(filter.keys["logsource"])
	have, _ := mapping(detection.keys["logsource"])
	for _, wanted := range want {
		if wanted.key == "definition" {
			continue // a text for people
		}

		// Values are compared without regard to case.
		same := func(h entry) bool {
			return h.key == wanted.key && strings.EqualFold(h.value.Value, wanted.value.Value)
		}
		if !slices.ContainsFunc(have, same) {
			return false
		}
	}
	return true
}
