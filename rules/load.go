package rules

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// Settings control how rules are loaded.
type Settings struct {
	Vars Vars
	// AllLogSources also runs the rules that are for other products than Auth0. Those rules
	// describe events of another kind, so a tenant's own events rarely match them.
	AllLogSources bool
}

// Vars are the values of the placeholders in rules. A variable with an empty list counts
// as set: a test against it is false.
type Vars map[string][]string

// loader compiles documents into a Set.
type loader struct {
	all        bool // see Settings.AllLogSources
	vars       Vars
	sources    int // number of sources read so far, counting the current one
	docs       []*document
	reports    map[*document]*Document
	unreadable []Document
	fields     *expr.Fields
	rules      map[*document]*Rule
	order      []*Rule // in the order compiled: a correlation follows the rules that it counts
	links      map[*Rule]links
	compiling  []*document // correlations that are being compiled, the outermost first
	errs       map[*document]error
	filters    map[*document][]*expr.Tree // by the detection that they narrow
	used       map[*document]bool         // rules that a correlation refers to
	standalone map[*document]bool         // those of used that also alert on their own
	overlays   *overlays
}

// links are the rules that a correlation refers to, in the order of its Sources and of Among.
type links struct {
	rules, among []*Rule
	height       int // length of the longest chain of correlations that ends here
}

// Load reads every .yml and .yaml file of the sources, except timeline tests (.test.yml), and
// compiles what it can. It never fails as a whole: the Report has the outcome of each document.
// A document replaces those with the same id in earlier sources. Within one source, the second
// document with an id gets a different id and a warning.
func (s Settings) Load(sources ...fs.FS) (*Set, *Report) { return load(s, sources).finish() }

// Load loads the rules for Auth0; see Settings.Load.
func Load(vars Vars, sources ...fs.FS) (*Set, *Report) {
	return Settings{Vars: vars}.Load(sources...)
}

// load parses, overlays and compiles every document. finish drops detections that nothing uses.
func load(settings Settings, sources []fs.FS) *loader {
	loading := &loader{
		all:        settings.AllLogSources,
		vars:       settings.Vars,
		reports:    map[*document]*Document{},
		fields:     expr.NewFields(),
		rules:      map[*document]*Rule{},
		links:      map[*Rule]links{},
		errs:       map[*document]error{},
		filters:    map[*document][]*expr.Tree{},
		used:       map[*document]bool{},
		standalone: map[*document]bool{},
		overlays:   newOverlays(),
	}

	// Read everything first: overlays and references may concern any document.
	for _, source := range sources {
		loading.read(source)
	}

	loading.applyOverlays()
	loading.markUsed()

	// A detection includes its filters, and a correlation needs the rules that it counts.
	loading.compile(kindFilter, loading.filter)
	loading.compile(kindDetection, loading.detection)
	loading.compile(kindCorrelation, func(d *document) error {
		if loading.rules[d] != nil || loading.errs[d] != nil {
			return loading.errs[d] // compiled already, for a correlation that refers to it
		}
		return loading.correlation(d)
	})
	return loading
}

// Walk calls f for every .yml and .yaml file of a source, except hidden files and folders: a
// mounted Kubernetes ConfigMap repeats every file in hidden folders.
func Walk(source fs.FS, f func(name string) error) error {
	return fs.WalkDir(source, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir() || path.Ext(name) != ".yml" && path.Ext(name) != ".yaml":
			return nil
		}

		return f(name)
	})
}

// IsTest reports whether a file has timeline tests, not rules.
func IsTest(name string) bool {
	return strings.HasSuffix(name, ".test.yml") || strings.HasSuffix(name, ".test.yaml")
}

// read parses the files of one source and gives every document a unique id.
func (l *loader) read(source fs.FS) {
	l.sources++
	// Documents of earlier sources that this source may replace.
	earlier := map[string]*document{}
	for _, doc := range l.docs {
		if doc.id != "" {
			earlier[doc.key] = doc
		}
	}

	// Ids must be unique within a source, across its files.
	seen := map[string]bool{}
	err := Walk(source, func(name string) error {
		if IsTest(name) {
			return nil
		}
		if isOverlay(name) {
			return l.overlays.add(source, name)
		}

		data, err := fs.ReadFile(source, name)
		if err != nil {
			return err
		}

		// The documents before a syntax error are still loaded.
		docs, err := parseFile(name, data)
		if err != nil {
			l.unreadable = append(l.unreadable, Document{
				File: name, Line: errorLine(err, name), Status: StatusRefused, Reason: reason(err)})
		}

		l.addFile(name, docs, earlier, seen)
		return nil
	})
	if err != nil {
		l.unreadable = append(l.unreadable, Document{
			Status: StatusRefused, Reason: fmt.Sprintf("read rules: %v", err)})
	}
}

// addFile adds the documents of one file. It derives the ids that the file does not give: a
// correlation without an id belongs to the detection before it.
func (l *loader) addFile(name string, docs []*document, earlier map[string]*document, seen map[string]bool) {
	base, correlations := "", 0
	for _, doc := range docs {
		report := &Document{File: doc.file, Line: doc.line, Kind: doc.kind, Name: doc.name, Title: doc.title}
		l.reports[doc], doc.source = report, l.sources
		l.docs = append(l.docs, doc)

		// Derive the id if there is none.
		switch {
		case doc.id != "":
		case doc.kind == kindCorrelation && base != "":
			correlations++
			doc.id = fmt.Sprintf("%s#%d", base, correlations)
		default:
			doc.id = fmt.Sprintf("%s#%d", name, doc.index)
			if doc.kind != kindFilter {
				report.warn("no id: alerts are identified by the file name, and change when it does")
			}
		}

		// Correlations that follow without an id belong to this detection.
		if doc.kind == kindDetection {
			base, correlations = doc.id, 0
		}

		// Two documents of one source may not share an id: their alerts would be one.
		if doc.key = idKey(doc.id); seen[doc.key] {
			report.warn("id %s is used by another document; the file name is added", doc.id)
			unique := doc.id + "@" + path.Base(name)
			doc.id = unique
			for n := 2; seen[doc.id]; n++ {
				doc.id = fmt.Sprintf("%s#%d", unique, n)
			}

			doc.key = doc.id
			if doc.kind == kindDetection {
				base = doc.id
			}
		}

		seen[doc.key] = true
		report.ID = doc.id

		// A document of an earlier source with this id is replaced.
		if old := earlier[doc.key]; old != nil {
			old.replacedBy = doc
		}
	}
}

// find resolves a reference by id or name: in the same file first, since the files of a
// catalog repeat names, then everywhere.
func (l *loader) find(from *document, ref string) *document {
	for _, same := range []bool{true, false} {
		for _, doc := range l.docs {
			if (doc.file == from.file) != same || doc == from || doc.kind == kindFilter || !doc.isCalled(ref) {
				continue
			}

			// A reference means the current version.
			for doc.replacedBy != nil {
				doc = doc.replacedBy
			}
			return doc
		}
	}
	return nil
}

// markUsed finds the rules that correlations refer to: they do not alert on their own.
func (l *loader) markUsed() {
	for _, doc := range l.docs {
		if doc.kind != kindCorrelation || doc.replacedBy != nil {
			continue
		}
		names, generate := doc.references()
		for _, name := range names {
			if base := l.find(doc, name); base != nil {
				l.used[base] = true
				l.standalone[base] = l.standalone[base] || generate
			}
		}
	}
}

// alerts reports whether a rule alerts on its own.
func (l *loader) alerts(d *document) bool { return !l.used[d] || l.standalone[d] }

// finish drops the detections that nothing uses and gives the remaining rules their indexes.
func (l *loader) finish() (*Set, *Report) {
	needed := l.needed()
	var rules []*Rule
	index := map[*Rule]int{}

	// Keep the order in which rules were compiled: bases come before their correlations.
	for _, rule := range l.order {
		if rule.Alert != nil || needed[rule] {
			index[rule] = len(rules)
			rules = append(rules, rule)
		}
	}

	// Correlations refer to the rules that they count by index.
	for rule, link := range l.links {
		for i, base := range link.rules {
			rule.Correlation.Sources[i].Rule = index[base]
		}
		for _, base := range link.among {
			rule.Correlation.Among = append(rule.Correlation.Among, index[base])
		}
	}

	return newSet(rules, l.fields.Program), l.report(needed)
}

// needed returns the rules that some alerting correlation counts, directly or not.
func (l *loader) needed() map[*Rule]bool {
	needed := map[*Rule]bool{}
	var need func(r *Rule)
	need = func(r *Rule) {
		for _, base := range slices.Concat(l.links[r].rules, l.links[r].among) {
			if !needed[base] {
				needed[base] = true
				need(base)
			}
		}
	}

	for _, rule := range l.order {
		if rule.Alert != nil {
			need(rule)
		}
	}
	return needed
}

// report collects the outcomes: first of unreadable files, then of overlays and documents.
func (l *loader) report(needed map[*Rule]bool) *Report {
	report := &Report{Documents: l.unreadable}
	for _, doc := range l.overlays.reports {
		report.Documents = append(report.Documents, *doc)
	}

	// A rule that nothing uses any more compiled without an error: correct its status.
	for _, source := range l.docs {
		doc := l.reports[source]
		if rule := l.rules[source]; rule != nil && rule.Alert == nil && !needed[rule] {
			doc.Status, doc.Reason = StatusDisabled, "it only serves a correlation that does not run"
		}
		report.Documents = append(report.Documents, *doc)
	}
	return report
}
