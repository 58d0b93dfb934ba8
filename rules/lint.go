package rules

import (
	"cmp"
	_ "embed"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Severity is how bad a finding is.
type Severity string

// The severities of findings.
const (
	Error   Severity = "error"   // the rule does not do what it says
	Warning Severity = "warning" // it hardly does what was meant
	Info    Severity = "info"    // something that others would want to know is missing
)

// AtLeast compares severities.
func (s Severity) AtLeast(other Severity) bool {
	order := []Severity{Info, Warning, Error}
	return slices.Index(order, s) >= slices.Index(order, other)
}

// Finding is something about a rule that is wrong, or should be looked at.
type Finding struct {
	Severity Severity
	Check    string // load, cap, type, name, tag, text, window, test, schema
	File     string
	Line     int // 0 where that is not known
	ID       string
	Title    string
	Text     string
}

// Lint finds mistakes in the documents of some sources. Schemas may be nil. Findings
// come by file, in the order in which Load reads these, and line.
func (s Settings) Lint(schemas Schemas, sources ...fs.FS) []Finding {
	l := load(s, sources)
	set, report := l.finish()
	var list []Finding
	for i := range report.Documents {
		list = append(list, report.Documents[i].findings()...)
	}
	tested := l.tests(sources)
	names := map[string]*document{}
	known := knownTypes()
	caps := Caps()
	docs := map[*Rule]*document{}
	for d, r := range l.rules {
		docs[r] = d
	}
	for _, d := range l.docs {
		if d.replacedBy != nil {
			continue
		}
		r := l.rules[d]
		list = append(list, d.checkName(names)...)
		list = append(list, d.checkTags()...)
		if r == nil || !slices.Contains(set.rules, r) {
			continue
		}
		list = append(list, l.checkTypes(r, known)...)
		list = append(list, l.checkCaps(d, r, caps)...)
		list = append(list, l.checkTexts(d, r, docs)...)
		if r.Alert != nil && !tested[inSource{d.source, d.file}] {
			list = append(list, d.found(Info, "test", d.line, "it has no timeline test beside it"))
		}
	}
	if schemas != nil {
		for _, source := range sources {
			list = append(list, schemas.check(source)...)
		}
	}
	rank := map[string]int{}
	for _, d := range report.Documents {
		if _, ok := rank[d.File]; !ok {
			rank[d.File] = len(rank)
		}
	}
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank[a.File], rank[b.File]), cmp.Compare(a.Line, b.Line))
	})
	return unique(list)
}

// unique leaves out what was found twice, as in a filter of several rules.
func unique(list []Finding) []Finding {
	seen := map[Finding]bool{}
	return slices.DeleteFunc(list, func(f Finding) bool {
		was := seen[f]
		seen[f] = true
		return was
	})
}

func (d *document) found(severity Severity, check string, line int, format string, args ...any) Finding {
	return Finding{Severity: severity, Check: check, File: d.file, Line: line, ID: d.id, Title: d.title, Text: fmt.Sprintf(format, args...)}
}

// findings are what Load has to say of a document.
func (d *Document) findings() (list []Finding) {
	add := func(severity Severity, text string) {
		f := Finding{Severity: severity, Check: "load", File: d.File, Line: d.Line, ID: d.ID, Title: d.Title, Text: text}
		if line := errorLine(fmt.Errorf("%s", text), d.File); line > 0 && d.File != "" {
			f.Line = line
			f.Text = strings.TrimPrefix(strings.TrimPrefix(text, fmt.Sprintf("%s:%d: ", d.File, line)), d.File+": ")
		}
		list = append(list, f)
	}
	switch d.Status {
	case Refused:
		add(Error, d.Reason)
	case Waiting:
		add(Info, "it does not run: "+d.Reason)
	}
	for _, w := range d.Warnings {
		add(Warning, w)
	}
	return list
}

// inSource is a file of a source.
type inSource struct {
	source int
	file   string
}

// tests are the files of rules that have timeline tests beside them.
func (l *loader) tests(sources []fs.FS) map[inSource]bool {
	tested := map[inSource]bool{}
	for i, source := range sources {
		_ = Walk(source, func(name string) error { // what cannot be read, Load has said
			if IsTest(name) {
				ext := path.Ext(name)
				tested[inSource{i + 1, strings.TrimSuffix(name, ".test"+ext) + ext}] = true
			}
			return nil
		})
	}
	return tested
}

// lineOf is the line of a key in a map, or that of the map.
func lineOf(n *yaml.Node, key string) int {
	entries, _ := mapping(n)
	for _, e := range entries {
		if e.key == key {
			return e.line
		}
	}
	if n == nil {
		return 0
	}
	return n.Line
}

// checkName finds names that several documents have.
func (d *document) checkName(names map[string]*document) []Finding {
	if d.name == "" {
		return nil
	}
	if first := names[d.name]; first != nil {
		return []Finding{d.found(Warning, "name", d.lineOf("name"), "the name %s is also that of %s:%d: what refers to it from another file means that one", d.name, first.file, first.line)}
	}
	names[d.name] = d
	return nil
}

// lineOf is the line of a top-level key, or that of the document.
func (d *document) lineOf(key string) int {
	if n := d.keys[key]; n != nil {
		return n.Line
	}
	return d.line
}

// The form of tags: of all, and of those of MITRE ATT&CK, a technique, a group, a
// piece of software and their like by number, or a tactic by name.
var (
	tagForm    = regexp.MustCompile(`^[a-z0-9_-]+\.[a-z0-9._-]+$`)
	attackForm = regexp.MustCompile(`^attack\.([tgscm][0-9]{4}(\.[0-9]{3})?|[a-z]+(-[a-z]+)*)$`)
)

// checkTags finds tags that other tools will not understand.
func (d *document) checkTags() (list []Finding) {
	for _, tag := range d.list("tags") {
		better := strings.ReplaceAll(strings.ToLower(tag), "_", "-")
		switch {
		case strings.HasPrefix(strings.ToLower(tag), "attack.") && !attackForm.MatchString(tag):
			if attackForm.MatchString(better) {
				list = append(list, d.found(Warning, "tag", d.lineOf("tags"), "the tag %s is to be %s", tag, better))
				continue
			}
			list = append(list, d.found(Warning, "tag", d.lineOf("tags"), "the tag %s is neither a technique, such as attack.t1110 or attack.t1110.004, nor a tactic, such as attack.credential-access", tag))
		case !tagForm.MatchString(tag):
			list = append(list, d.found(Warning, "tag", d.lineOf("tags"), "the tag %q has not Sigma's form, which is namespace.name in lower case", tag))
		}
	}
	return list
}

//go:embed types.txt
var typesText string

// typeNames are the types of events.
type typeNames struct {
	current []string
	retired []string
}

func knownTypes() typeNames {
	t := typeNames{current: []string{schema.TypeProbe, schema.TypeAPIError, schema.TypeGap, schema.TypeAudit, schema.TypeLogStream, schema.TypeHealth, schema.TypeForgotten}}
	for line := range strings.Lines(typesText) {
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "retired:"):
			t.retired = append(t.retired, strings.Fields(strings.TrimPrefix(line, "retired:"))...)
		default:
			t.current = append(t.current, strings.Fields(line)...)
		}
	}
	return t
}

// have reports whether a pattern matches one of some types.
func (p pattern) have(types []string) bool {
	return slices.ContainsFunc(types, func(name string) bool { return p.match([]byte(name)) })
}

// checkTypes finds event types that Auth0 does not have, or no longer.
func (l *loader) checkTypes(r *Rule, known typeNames) (list []Finding) {
	if r.outline == nil {
		return nil
	}
	old := r.types != nil && !slices.ContainsFunc(r.types, func(p pattern) bool { return !p.have(known.retired) || p.have(known.current) })
	r.outline.leaves(func(o *outline) {
		t, ok := o.leaf.(*test)
		if !ok || t.field.Path != typeField {
			return
		}
		for _, p := range t.patterns() {
			if p.have(known.current) {
				continue
			}
			f := Finding{Severity: Warning, Check: "type", File: o.file, Line: o.line, ID: r.ID, Title: r.Title}
			name := types{p}.strings()[0]
			switch {
			case p.have(known.retired):
				if f.Text = fmt.Sprintf("Auth0 no longer emits events of the type %s", name); !old {
					f.Severity = Info
				}
			case p.shape == exact:
				f.Text = fmt.Sprintf("no event type %s is known", name)
				if near := known.near(name); near != "" {
					f.Text += "; there is " + near
				}
			default:
				f.Text = fmt.Sprintf("no event type like %s is known", name)
			}
			list = append(list, f)
		}
	})
	return list
}

// patterns are what a test compares text with.
func (t *test) patterns() (list []pattern) {
	for _, c := range t.checks {
		switch c := c.(type) {
		case oneOf:
			for text := range c {
				list = append(list, pattern{text: text})
			}
		case pattern:
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b pattern) int {
		return cmp.Or(strings.Compare(a.text, b.text), slices.Compare(a.parts, b.parts))
	})
	return list
}

// near is the type that a name is a slip of the pen of; empty for none.
func (t *typeNames) near(name string) string {
	best, least := "", min(3, len(name))
	for _, known := range t.current {
		n := levenshtein.Distance(name, known, nil)
		if n < least || n == least && best != "" && len(best) != len(name) && len(known) == len(name) {
			best, least = known, n
		}
	}
	return best
}

// checkTexts finds what a reader of an alert would miss. A correlation takes it from
// what it counts.
func (l *loader) checkTexts(d *document, r *Rule, docs map[*Rule]*document) []Finding {
	if r.Alert == nil {
		return nil
	}
	var missing []string
	var has func(r *Rule) bool
	has = func(r *Rule) bool {
		return docs[r].text("level") != "" || slices.ContainsFunc(l.links[r].rules, has)
	}
	if !has(r) {
		missing = append(missing, "level ("+defaultLevel+" is taken)")
	}
	if r.Description == "" {
		missing = append(missing, "description")
	}
	if r.FalsePositives == nil {
		missing = append(missing, "falsepositives")
	}
	if len(missing) == 0 {
		return nil
	}
	return []Finding{d.found(Info, "text", d.line, "it has no %s", strings.Join(missing, ", no "))}
}
