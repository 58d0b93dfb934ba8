package rules

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
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
	Check    string // load, cap, type, name, tag, text, test
	File     string
	Line     int // 0 if unknown
	ID       string
	Title    string
	Text     string
}

// Lint finds mistakes in the documents of some sources. The findings are sorted by file, in the
// order in which Load reads them, and by line.
func (s Settings) Lint(sources ...fs.FS) []Finding {
	loader := load(s, sources)
	set, report := loader.finish()
	var list []Finding
	for i := range report.Documents {
		list = append(list, report.Documents[i].findings()...)
	}

	list = append(list, loader.lint(set, sources)...)

	// Sort the files in the order of the report, not by name.
	rank := map[string]int{}
	for _, doc := range report.Documents {
		if _, ok := rank[doc.File]; !ok {
			rank[doc.File] = len(rank)
		}
	}

	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank[a.File], rank[b.File]), cmp.Compare(a.Line, b.Line))
	})
	return unique(list)
}

// lint runs the checks over the documents that no other replaces. Those of their meaning run only
// for rules of the set.
func (l *loader) lint(set *Set, sources []fs.FS) (list []Finding) {
	tested := l.tests(sources)
	names := map[string]*document{}
	known := knownTypes()
	caps := Caps()

	// The checks of rules also need their documents.
	docs := map[*Rule]*document{}
	for doc, rule := range l.rules {
		docs[rule] = doc
	}

	for _, doc := range l.docs {
		if doc.replacedBy != nil {
			continue
		}
		list = append(list, doc.checkName(names)...)
		list = append(list, doc.checkTags()...)

		rule := l.rules[doc]
		if rule == nil || !slices.Contains(set.rules, rule) {
			continue
		}
		list = append(list, l.checkTypes(rule, known)...)
		list = append(list, l.checkCaps(doc, rule, caps)...)
		list = append(list, l.checkTexts(doc, rule, docs)...)
		if rule.Alert != nil && !tested[inSource{doc.source, doc.file}] {
			list = append(list, doc.found(SeverityInfo, "test", doc.line, "it has no timeline test beside it"))
		}
	}

	return list
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

// found returns a finding about the document.
func (d *document) found(severity Severity, check string, line int, format string, args ...any) Finding {
	return Finding{Severity: severity, Check: check, File: d.file, Line: line, ID: d.id, Title: d.title,
		Text: fmt.Sprintf(format, args...)}
}

// findings returns the errors and warnings of loading a document.
func (d *Document) findings() (list []Finding) {
	add := func(severity Severity, text string) {
		finding := Finding{Severity: severity, Check: "load", File: d.File, Line: d.Line, ID: d.ID, Title: d.Title,
			Text: text}
		// The text may begin with a more exact line.
		if line := errorLine(errors.New(text), d.File); line > 0 && d.File != "" {
			finding.Line = line
			text = strings.TrimPrefix(text, fmt.Sprintf("%s:%d: ", d.File, line))
			finding.Text = strings.TrimPrefix(text, d.File+": ")
		}
		list = append(list, finding)
	}

	switch d.Status {
	case StatusRefused:
		add(SeverityError, d.Reason)
	case StatusWaiting:
		add(SeverityInfo, "it does not run: "+d.Reason)
	}

	// Warnings apply whatever the status.
	for _, warning := range d.Warnings {
		add(SeverityWarning, warning)
	}

	return list
}

// inSource is a file of a source.
type inSource struct {
	source int
	file   string
}

// tests returns the rule files that have timeline tests beside them.
func (l *loader) tests(sources []fs.FS) map[inSource]bool {
	tested := map[inSource]bool{}
	for i, source := range sources {
		// Ignore errors: Load has reported them.
		_ = Walk(source, func(name string) error {
			if IsTest(name) {
				ext := path.Ext(name)
				tested[inSource{i + 1, strings.TrimSuffix(name, ".test"+ext) + ext}] = true
			}
			return nil
		})
	}
	return tested
}

// lineOf returns the line of a key in a map, or else that of the map.
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

// lineOf returns the line of a top-level key, or else that of the document.
func (d *document) lineOf(key string) int {
	if node := d.keys[key]; node != nil {
		return node.Line
	}
	return d.line
}

// checkName finds names that several documents have.
func (d *document) checkName(names map[string]*document) []Finding {
	if d.name == "" {
		return nil
	}
	if first := names[d.name]; first != nil {
		return []Finding{d.found(SeverityWarning, "name", d.lineOf("name"),
			"%s:%d also has the name %s: references from other files mean that one", first.file, first.line, d.name)}
	}
	names[d.name] = d
	return nil
}

// The form of all tags, and of the tags of MITRE ATT&CK: a technique, group, software or the like
// by number, or a tactic by name.
var (
	tagForm    = regexp.MustCompile(`^[a-z0-9_-]+\.[a-z0-9._-]+$`)
	attackForm = regexp.MustCompile(`^attack\.([tgscm][0-9]{4}(\.[0-9]{3})?|[a-z]+(-[a-z]+)*)$`)
)

// checkTags finds tags that other tools will not understand.
func (d *document) checkTags() (list []Finding) {
	warn := func(format string, args ...any) {
		list = append(list, d.found(SeverityWarning, "tag", d.lineOf("tags"), format, args...))
	}
	for _, tag := range d.list("tags") {
		better := strings.ReplaceAll(strings.ToLower(tag), "_", "-")
		isAttack := strings.HasPrefix(strings.ToLower(tag), "attack.")
		switch {
		case isAttack && !attackForm.MatchString(tag) && attackForm.MatchString(better):
			warn("the tag %s should be %s", tag, better)
		case isAttack && !attackForm.MatchString(tag):
			warn("the tag %s is neither a technique, such as attack.t1110 or attack.t1110.004, "+
				"nor a tactic, such as attack.credential-access", tag)
		case !tagForm.MatchString(tag):
			warn("the tag %q does not have Sigma's form, namespace.name in lower case", tag)
		}
	}
	return list
}

// checkTexts finds information that a reader of an alert would miss. A correlation inherits it
// from the rules that it counts.
func (l *loader) checkTexts(doc *document, rule *Rule, docs map[*Rule]*document) []Finding {
	if rule.Alert == nil {
		return nil
	}

	var missing []string
	var hasLevel func(r *Rule) bool
	hasLevel = func(r *Rule) bool {
		return docs[r].text("level") != "" || slices.ContainsFunc(l.links[r].rules, hasLevel)
	}

	// Without a level anywhere, the default is rarely what was meant.
	if !hasLevel(rule) {
		missing = append(missing, "level (default "+defaultLevel+")")
	}
	if rule.Description == "" {
		missing = append(missing, "description")
	}
	if rule.FalsePositives == nil {
		missing = append(missing, "falsepositives")
	}
	if len(missing) == 0 {
		return nil
	}
	return []Finding{doc.found(SeverityInfo, "text", doc.line, "it has no %s", strings.Join(missing, ", no "))}
}
