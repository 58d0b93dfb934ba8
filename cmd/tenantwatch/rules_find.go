package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/tenantwatch/tenantwatch/rules"
)

// loadRule loads the rules and returns the named one. The rule is nil when its document does not run.
func (s *ruleSources) loadRule(a *app, name string) (*rules.Set, *rules.Document, *rules.Rule, error) {
	set, report, _, err := s.load(a)
	if err != nil {
		return nil, nil, nil, err
	}
	doc, err := findRule(set, report, name)
	if err != nil || !doc.Runs() {
		return set, doc, nil, err
	}

	for _, rule := range set.Rules() {
		if rule.ID == doc.ID {
			return set, doc, rule, nil
		}
	}
	return set, doc, nil, nil
}

// findRule returns the document with an id, else a name, else a title. Of several, those that run are
// preferred, and then those that alert: a detection and the correlation that counts it may share a title.
func findRule(set *rules.Set, report *rules.Report, name string) (*rules.Document, error) {
	var all []*rules.Document
	for i := range report.Documents {
		if doc := &report.Documents[i]; doc.ID != "" && doc.Kind != "filter" {
			// A filter is not a rule.
			all = append(all, doc)
		}
	}

	found := namedRules(all, name)
	alerts := func(doc *rules.Document) bool {
		return slices.ContainsFunc(set.Rules(), func(r *rules.Rule) bool { return r.ID == doc.ID && r.Alert != nil })
	}
	// Narrow in two steps; a step that would leave none is skipped.
	for _, preferred := range []func(*rules.Document) bool{(*rules.Document).Runs, alerts} {
		narrowed := slices.DeleteFunc(slices.Clone(found), func(doc *rules.Document) bool { return !preferred(doc) })
		if len(narrowed) > 0 {
			found = narrowed
		}
	}

	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		message := fmt.Sprintf("--rule: unknown rule %q", name)
		if similar := similarRules(all, name); len(similar) > 0 {
			message += "; did you mean " + strings.Join(similar, ", ") + "?"
		}
		return nil, usageError(message)
	}

	// Ids are unique, unlike names and titles.
	var list []string
	for _, doc := range found {
		list = append(list, fmt.Sprintf("%s (%s:%d)", doc.ID, doc.File, doc.Line))
	}
	return nil, usageError(fmt.Sprintf("--rule: several rules are named %q; give the id: %s",
		name, strings.Join(list, ", ")))
}

// namedRules returns the documents with an id; if there is none, those with a name, else those with a title.
func namedRules(all []*rules.Document, name string) []*rules.Document {
	keys := []func(*rules.Document) string{
		func(doc *rules.Document) string { return doc.ID },
		func(doc *rules.Document) string { return doc.Name },
		func(doc *rules.Document) string { return doc.Title },
	}
	for _, key := range keys {
		var found []*rules.Document
		for _, doc := range all {
			if value := key(doc); strings.EqualFold(value, name) || rules.SameID(value, name) {
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
func similarRules(all []*rules.Document, name string) []string {
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
