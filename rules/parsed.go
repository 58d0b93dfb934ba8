package rules

import (
	"io/fs"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Parsed is a document with what its file says and the rule that it has become, for those who look
// for mistakes in rules.
type Parsed struct {
	*Document
	Source int // index of its source among those that were read
	// Rule is the rule of the Set that a detection or correlation has become; nil if it does not
	// run.
	Rule   *Rule
	Counts []*Parsed // of a correlation that runs: the rules that it counts, as Correlation.Sources

	doc *document
}

// Parse is Load with the documents that no other one replaces, in the order read.
func (s Settings) Parse(sources ...fs.FS) (*Set, *Report, []*Parsed) {
	loader := load(s, sources)
	set, report := loader.finish()

	var list []*Parsed
	byRule := map[*Rule]*Parsed{}
	for _, doc := range loader.docs {
		if doc.replacedBy != nil {
			continue
		}
		parsed := &Parsed{Document: loader.reports[doc], Source: doc.source - 1, doc: doc}
		list = append(list, parsed)

		if rule := loader.rules[doc]; rule != nil && slices.Contains(set.rules, rule) {
			parsed.Rule, byRule[rule] = rule, parsed
		}
	}

	// A rule of the set counts rules of the set.
	for _, parsed := range list {
		if parsed.Rule == nil {
			continue
		}
		for _, base := range loader.links[parsed.Rule].rules {
			parsed.Counts = append(parsed.Counts, byRule[base])
		}
	}
	return set, report, list
}

// Text returns the text of a top-level key; "" if there is none.
func (p *Parsed) Text(key string) string { return p.doc.text(key) }

// Texts returns the texts of a top-level key that has one or a list of them.
func (p *Parsed) Texts(key string) []string { return p.doc.list(key) }

// LineOf returns the line of a top-level key, or else that of the document.
func (p *Parsed) LineOf(key string) int {
	if node := p.doc.keys[key]; node != nil {
		return node.Line
	}
	return p.doc.line
}

// CorrelationAt returns the file and line of a key of the correlation, which may be an overlay's.
func (p *Parsed) CorrelationAt(key string) (file string, line int) {
	overlaid := p.doc.overlay != nil && p.doc.overlay.correlation != nil
	return p.fileOf(overlaid), lineOf(p.doc.keys["correlation"], key)
}

// AlertAt returns the file and line of a key of x-tenantwatch-alert, which may be an overlay's.
func (p *Parsed) AlertAt(key string) (file string, line int) {
	overlaid := p.doc.overlay != nil && p.doc.overlay.alert != nil
	return p.fileOf(overlaid), lineOf(p.doc.keys[keyAlert], key)
}

// fileOf returns the file of the overlay, or that of the document.
func (p *Parsed) fileOf(overlaid bool) string {
	if overlaid {
		return p.doc.overlay.file
	}
	return p.doc.file
}

// lineOf returns the line of a key in a map, or else that of the map; 0 without a map.
func lineOf(node *yaml.Node, key string) int {
	entries, _ := mapping(node)
	for _, entry := range entries {
		if entry.key == key {
			return entry.line
		}
	}

	if node == nil {
		return 0
	}
	return node.Line
}
