package rules

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Find returns the document of a report with an id, else a name, else a title, and its rule in a set: nil when
// the document does not run. Of several documents, those that run are preferred, and then those that alert: a
// detection and the correlation that counts it may share a title. The error of an unknown name suggests
// others.
func Find(set *Set, report *Report, name string) (*Document, *Rule, error) {
	var all []*Document
	for i := range report.Documents {
		if doc := &report.Documents[i]; doc.ID != "" && doc.Kind != "filter" {
			// A filter is not a rule.
			all = append(all, doc)
		}
	}

	found := namedRules(all, name)
	alerts := func(doc *Document) bool {
		return slices.ContainsFunc(set.Rules(), func(r *Rule) bool { return r.ID == doc.ID && r.Alert != nil })
	}
	// Narrow in two steps; a step that would leave none is skipped.
	for _, preferred := range []func(*Document) bool{(*Document).Runs, alerts} {
		narrowed := slices.DeleteFunc(slices.Clone(found), func(doc *Document) bool { return !preferred(doc) })
		if len(narrowed) > 0 {
			found = narrowed
		}
	}

	switch len(found) {
	case 1:
		return found[0], runningRule(set, found[0]), nil
	case 0:
		message := fmt.Sprintf("unknown rule %q", name)
		if similar := similarRules(all, name); len(similar) > 0 {
			message += "; did you mean " + strings.Join(similar, ", ") + "?"
		}
		return nil, nil, errors.New(message)
	}

	// Ids are unique, unlike names and titles.
	var list []string
	for _, doc := range found {
		list = append(list, fmt.Sprintf("%s (%s:%d)", doc.ID, doc.File, doc.Line))
	}
	return nil, nil, fmt.Errorf("several rules are named %q; give the id: %s", name, strings.Join(list, ", "))
}

// runningRule returns the rule of a document, nil if it does not run.
func runningRule(set *Set, doc *Document) *Rule {
	i := slices.IndexFunc(set.Rules(), func(r *Rule) bool { return r.ID == doc.ID })
	if !doc.Runs() || i < 0 {
		return nil
	}
	return set.Rules()[i]
}

// namedRules returns the documents with an id; if there is none, those with a name, else those with a title.
func namedRules(all []*Document, name string) []*Document {
	keys := []func(*Document) string{
		func(doc *Document) string { return doc.ID },
		func(doc *Document) string { return doc.Name },
		func(doc *Document) string { return doc.Title },
	}
	for _, key := range keys {
		var found []*Document
		for _, doc := range all {
			if value := key(doc); strings.EqualFold(value, name) || SameID(value, name) {
				found = append(found, doc)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// Bounds of the suggestions for an unknown rule.
const (
	maxSimilar    = 5
	minSimilarity = 0.5 // from 0 to 1
	partSimilar   = 0.9 // similarity of a name to one that contains it
)

// similarRules returns rules that may be meant by a name, best first.
func similarRules(all []*Document, name string) []string {
	type candidate struct {
		text  string
		score float64
	}
	var found []candidate
	name = strings.ToLower(name)
	for _, doc := range all {
		c := candidate{text: fmt.Sprintf("%q (%s)", doc.Title, doc.ID)}
		for _, known := range []string{doc.ID, doc.Name, doc.Title} {
			known = strings.ToLower(known)
			// A typo, or a part of the name.
			c.score = max(c.score, levenshtein.Similarity(name, known, nil))
			if name != "" && strings.Contains(known, name) {
				c.score = max(c.score, partSimilar)
			}
		}
		if c.score >= minSimilarity {
			found = append(found, c)
		}
	}

	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	var texts []string
	for _, c := range found[:min(len(found), maxSimilar)] {
		texts = append(texts, c.text)
	}
	return texts
}
