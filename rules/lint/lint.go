package lint

import (
	"cmp"
	"io/fs"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules"
)

// check finds one kind of mistake. One of its functions is set: that says what it looks at. A
// finding gets the name of the check.
type check struct {
	name     string
	outcome  func(d *rules.Document) []Finding         // of each document and file that was read
	document func(run *run, p *rules.Parsed) []Finding // each document that no other one replaces
	rule     func(run *run, p *rules.Parsed) []Finding // those with a Rule
}

// checks returns all checks. A new one is a file and a line here.
func checks() []check {
	return []check{
		{name: "load", outcome: checkLoad},
		{name: "name", document: checkName},
		{name: "tag", document: checkTags},
		{name: "type", rule: checkTypes},
		{name: "cap", rule: checkCaps},
		{name: "text", rule: checkTexts},
		{name: "test", rule: checkTimeline},
	}
}

// run is what checks need besides the document that they look at.
type run struct {
	named  map[string]*rules.Parsed // the first document with a name
	tested map[inSource]bool        // rule files with timeline tests beside them
	types  typeNames
	caps   []eventCap
}

// Run finds mistakes in the documents of some sources. The findings are sorted by file, in the
// order in which Settings.Load reads them, and by line.
func Run(settings rules.Settings, sources ...fs.FS) []Finding {
	_, report, parsed := settings.Parse(sources...)
	run := &run{named: firstByName(parsed), tested: testedIn(sources), types: knownTypes(), caps: allCaps()}
	all := checks()
	var list []Finding
	add := func(c check, findings []Finding) {
		for _, finding := range findings {
			finding.Check = c.name
			list = append(list, finding)
		}
	}

	// The report also has overlays, and files that could not be read.
	for i := range report.Documents {
		for _, check := range all {
			if check.outcome != nil {
				add(check, check.outcome(&report.Documents[i]))
			}
		}
	}

	// The meaning of a rule is checked only if it runs: the report says why others do not.
	for _, document := range parsed {
		for _, check := range all {
			switch {
			case check.document != nil:
				add(check, check.document(run, document))
			case check.rule != nil && document.Rule != nil:
				add(check, check.rule(run, document))
			}
		}
	}

	sortFindings(list, report)
	return unique(list)
}

// sortFindings sorts by file, in the order of the report, and by line.
func sortFindings(list []Finding, report *rules.Report) {
	// Not by name: the sources have an order.
	rank := map[string]int{}
	for _, doc := range report.Documents {
		if _, ok := rank[doc.File]; !ok {
			rank[doc.File] = len(rank)
		}
	}

	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank[a.File], rank[b.File]), cmp.Compare(a.Line, b.Line))
	})
}

// unique removes repeated findings, such as those in a filter of several rules.
func unique(list []Finding) []Finding {
	seen := map[Finding]bool{}
	return slices.DeleteFunc(list, func(f Finding) bool {
		was := seen[f]
		seen[f] = true
		return was
	})
}
