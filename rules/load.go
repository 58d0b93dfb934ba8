package rules

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
)

// Settings say how rules are loaded.
type Settings struct {
	Vars Vars
	// AllLogSources has rules run that are for other products than Auth0. They are
	// about events of another kind, so a tenant's own hardly ever match them.
	AllLogSources bool
}

// Vars are the values of the placeholders in rules. A variable that is set to
// an empty list is set: a test against it is false.
type Vars map[string][]string

// Set is a compiled set of rules. It does not change, and any number of
// goroutines may use it.
type Set struct {
	rules   []*Rule
	root    *node
	slots   int
	general func() *general // found when first asked for
}

// newSet returns a set without rules. What is general is found among those that it has
// when a Matcher is first asked for.
func newSet(root *node, slots int) *Set {
	s := &Set{root: root, slots: slots}
	s.general = sync.OnceValue(func() *general { return newGeneral(s, s.wants()) })
	return s
}

// Rules returns the rules that can be evaluated; their place is their index.
func (s *Set) Rules() []*Rule { return s.rules }

// Matcher returns a new Matcher.
func (s *Set) Matcher() *Matcher {
	m := &Matcher{set: s, programs: map[typeKey]*program{}, slots: make([]slot, s.slots), general: s.general()}
	if m.general.index != nil {
		m.finder = newFinder(m.general.index)
	}
	m.results = make([]result, m.general.shared)
	return m
}

// Status says what became of a document.
type Status string

const (
	Enabled  Status = "enabled"
	Tuned    Status = "tuned"    // enabled, as an overlay has changed it
	Waiting  Status = "waiting"  // right, but needs a variable from the user first
	Disabled Status = "disabled" // an overlay says so, or it serves nothing that runs
	Refused  Status = "refused"  // cannot be evaluated
	Replaced Status = "replaced" // by a document of the same id in a later source, or as an overlay says

	OtherSource Status = "other log source" // for another product than Auth0; see Settings.AllLogSources
)

// Report says what became of each document, in the order read.
type Report struct {
	Documents []Document
}

// Document is the fate of one document, or of a file that could not be read.
type Document struct {
	File     string
	Line     int
	Kind     string // detection, correlation, filter or overlay; empty when that is not known
	ID       string
	Name     string // by which correlations and filters refer to it; may be empty
	Title    string
	Status   Status
	Reason   string // why it does not run, with file and line where there is one, or how it was tuned
	Warnings []string
}

// Runs reports whether the document takes effect.
func (d *Document) Runs() bool { return d.Status == Enabled || d.Status == Tuned }

// Count returns how many documents have one of some statuses.
func (r *Report) Count(list ...Status) int {
	n := 0
	for _, d := range r.Documents {
		if slices.Contains(list, d.Status) {
			n++
		}
	}
	return n
}

// loader compiles documents into a Set.
type loader struct {
	all     bool // see Settings.AllLogSources
	vars    Vars
	common  Vars // of overlays, for all rules
	begun   int  // sources whose reading has begun
	docs    []*document
	fates   map[*document]*Document
	broken  []Document
	fields  *fields
	rules   map[*document]*Rule
	order   []*Rule
	links   map[*Rule]links
	busy    []*document // correlations that are being compiled, the outermost first
	errs    map[*document]error
	filters map[*document][]filter // by the detection they narrow
	used    map[*document]bool     // detections that a correlation refers to
	alone   map[*document]bool     // of these, those that alert by themselves all the same

	overlays     map[string]*overlay // by the id that they are about
	overlayFates []*Document         // of the files
}

// links are the rules that a correlation refers to, in the order of its Sources
// and of Among.
type links struct {
	rules, among []*Rule
	height       int // of the correlations that stand one above the other
}

// filter is what a filter document adds to a detection.
type filter struct {
	match   expr
	outline *outline
}

// maxChain is how deep correlations may refer to correlations.
const maxChain = 10

// Load reads every .yml and .yaml file of the sources, except timeline tests
// (.test.yml), and compiles what it can. It never fails as a whole: the Report
// has the fate of each document. Of documents with the same id, the one in the
// later source replaces the earlier; within one source, the second gets an id
// of its own and a warning.
func (s Settings) Load(sources ...fs.FS) (*Set, *Report) { return load(s, sources).finish() }

// Load loads the rules for Auth0, see Settings.Load.
func Load(vars Vars, sources ...fs.FS) (*Set, *Report) {
	return Settings{Vars: vars}.Load(sources...)
}

// load parses, overlays and compiles every document. finish drops what nothing needs.
func load(s Settings, sources []fs.FS) *loader {
	l := &loader{all: s.AllLogSources, vars: s.Vars, fates: map[*document]*Document{}, fields: newFields(), rules: map[*document]*Rule{},
		links: map[*Rule]links{}, errs: map[*document]error{},
		filters: map[*document][]filter{}, used: map[*document]bool{}, alone: map[*document]bool{},
		common: Vars{}, overlays: map[string]*overlay{}}
	for _, source := range sources {
		l.read(source)
	}
	l.overlay()
	l.markUsed()
	l.compile(kindFilter, l.filter)
	l.compile(kindDetection, l.detection)
	l.compile(kindCorrelation, func(d *document) error {
		if l.rules[d] != nil || l.errs[d] != nil {
			return l.errs[d] // another one refers to it
		}
		return l.correlation(d)
	})
	return l
}

// Walk calls f for every .yml and .yaml file of a source, but for hidden ones: a
// mounted Kubernetes ConfigMap has everything a second time in hidden folders.
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

// read parses the files of one source and settles their ids.
func (l *loader) read(source fs.FS) {
	l.begun++
	earlier := map[string]*document{}
	for _, d := range l.docs {
		if d.id != "" {
			earlier[d.key] = d
		}
	}
	seen := map[string]bool{}
	err := Walk(source, func(name string) error {
		ext := path.Ext(name)
		if IsTest(name) {
			return nil
		}
		if strings.HasSuffix(name, overlaySuffix+ext) {
			return l.readOverlayFile(source, name)
		}
		data, err := fs.ReadFile(source, name)
		if err != nil {
			return err
		}
		docs, err := parseFile(name, data)
		if err != nil {
			l.broken = append(l.broken, Document{File: name, Line: errorLine(err, name), Status: Refused, Reason: reason(err)})
		}
		base, correlations := "", 0
		for _, d := range docs {
			fate := &Document{File: d.file, Line: d.line, Kind: d.kind, Name: d.name, Title: d.title}
			l.fates[d], d.source = fate, l.begun
			l.docs = append(l.docs, d)
			switch {
			case d.id != "":
			case d.kind == kindCorrelation && base != "":
				correlations++
				d.id = fmt.Sprintf("%s#%d", base, correlations)
			default:
				d.id = fmt.Sprintf("%s#%d", name, d.index)
				if d.kind != kindFilter {
					fate.Warnings = append(fate.Warnings, "no id: alerts are known by the file's name, and change when it does")
				}
			}
			if d.kind == kindDetection {
				base, correlations = d.id, 0
			}
			if d.key = idKey(d.id); seen[d.key] {
				fate.Warnings = append(fate.Warnings, fmt.Sprintf("id %s is taken by another document; the file's name is added", d.id))
				own := d.id + "@" + path.Base(name)
				d.id = own
				for n := 2; seen[d.id]; n++ {
					d.id = fmt.Sprintf("%s#%d", own, n)
				}
				d.key = d.id
				if d.kind == kindDetection {
					base = d.id
				}
			}
			seen[d.key] = true
			if old := earlier[d.key]; old != nil {
				old.replacedBy = d
			}
			fate.ID = d.id
		}
		return nil
	})
	if err != nil {
		l.broken = append(l.broken, Document{Status: Refused, Reason: fmt.Sprintf("read rules: %v", err)})
	}
}

// errorLine finds the line in an error that begins with the file's name.
func errorLine(err error, file string) int {
	text := strings.TrimPrefix(err.Error(), file)
	for _, form := range []string{":%d:", ": yaml: line %d:"} {
		line := 0
		if _, err := fmt.Sscanf(text, form, &line); err == nil {
			return line
		}
	}
	return 0
}

// find resolves a reference by id or name: in the same file first, since the
// files of a catalog repeat names, then everywhere.
func (l *loader) find(from *document, ref string) *document {
	for _, same := range []bool{true, false} {
		for _, d := range l.docs {
			if (d.file == from.file) != same || d == from || d.kind == kindFilter || !d.isCalled(ref) {
				continue
			}
			for d.replacedBy != nil {
				d = d.replacedBy
			}
			return d
		}
	}
	return nil
}

// markUsed finds the detections that only serve correlations.
func (l *loader) markUsed() {
	for _, d := range l.docs {
		if d.kind != kindCorrelation || d.replacedBy != nil {
			continue
		}
		names, generate := d.references()
		for _, name := range names {
			if base := l.find(d, name); base != nil {
				l.used[base] = true
				l.alone[base] = l.alone[base] || generate
			}
		}
	}
}

// compile runs f over the documents of a kind and notes their fate.
func (l *loader) compile(kind string, f func(*document) error) {
	for _, d := range l.docs {
		if d.kind != kind {
			continue
		}
		fate, o := l.fates[d], d.overlay
		switch {
		case d.replacedBy != nil && o != nil && o.replacedBy != "":
			fate.Status, fate.Reason = Replaced, fmt.Sprintf("by %s: %s", d.replacedBy.file, o.reason)
			continue
		case d.replacedBy != nil:
			fate.Status, fate.Reason = Replaced, "by "+d.replacedBy.file
			continue
		case o != nil && o.off:
			fate.Status, fate.Reason = Disabled, o.place()+": "+o.reason
			l.errs[d] = errors.New("it is disabled")
			continue
		case d.kind != kindCorrelation && !l.all && d.product() != "" && !d.forAuth0():
			l.errs[d] = otherSource(d.product())
			fate.Status, fate.Reason = OtherSource, l.errs[d].Error()
			continue
		}
		err := f(d)
		switch {
		case err != nil:
			if o != nil {
				err = fmt.Errorf("%w (as %s has changed it)", err, o.place())
			}
			l.errs[d] = err
			fate.Status, fate.Reason = Refused, reason(err)
			if missing := (missingVars)(nil); errors.As(err, &missing) {
				fate.Status = Waiting
			}
			if other := otherSource(""); errors.As(err, &other) {
				fate.Status = OtherSource
			}
		case o != nil:
			fate.Status, fate.Reason = Tuned, strings.TrimSuffix("by "+o.place()+": "+o.reason, ": ")
		default:
			fate.Status = Enabled
		}
	}
}

// otherSource is the product that a rule is for, which is not Auth0.
type otherSource string

func (e otherSource) Error() string {
	return fmt.Sprintf("it is for product %s, whose events these are not; --all-log-sources or TENANTWATCH_ALL_LOG_SOURCES=true runs it all the same", string(e))
}

// docVars returns the variables, with the document's own defaults beneath.
func (l *loader) docVars(d *document) (Vars, error) {
	vars := Vars{}
	if n := d.keys[keyVars]; n != nil {
		var err error
		if vars, err = readVars(n); err != nil {
			return nil, d.errorf(n, "%s.%w", keyVars, err)
		}
	}
	maps.Copy(vars, l.common)
	if d.overlay != nil {
		maps.Copy(vars, d.overlay.vars)
	}
	maps.Copy(vars, l.vars)
	return vars, nil
}

func (l *loader) detection(d *document) error {
	r, err := d.rule()
	if err != nil {
		return err
	}
	vars, err := l.docVars(d)
	if err != nil {
		return err
	}
	if r.Level == "" {
		r.Level = defaultLevel
	}
	x, o, warnings, err := compileDetection(d, d.keys["detection"], l.fields, vars)
	l.fates[d].Warnings = append(l.fates[d].Warnings, warnings...)
	if err != nil {
		return err
	}
	if filters := l.filters[d]; len(filters) > 0 {
		all := and{x}
		o = &outline{op: OpAnd, parts: []*outline{o}}
		for _, f := range filters {
			all, o.parts = append(all, f.match), append(o.parts, f.outline)
		}
		x = all
	}
	r.match, r.readsType, r.outline, r.types = x, readsType(x), o, x.types()
	if r.types != nil {
		r.Types = r.types.strings()
	}
	if !l.used[d] || l.alone[d] {
		if r.Alert, err = d.alert(r, l.fields, nil, 1); err != nil {
			return err
		}
	}
	l.rules[d] = r
	l.order = append(l.order, r)
	return nil
}

func (l *loader) correlation(d *document) error {
	l.busy = append(l.busy, d)
	defer func() { l.busy = l.busy[:len(l.busy)-1] }()
	r, err := d.rule()
	if err != nil {
		return err
	}
	c, err := d.correlation(func(ref string) *document { return l.find(d, ref) })
	if err != nil {
		return err
	}
	l.fates[d].Warnings = append(l.fates[d].Warnings, c.warnings...)
	r.Correlation = &Correlation{Type: c.typ, Last: c.last, Least: c.least, Over: c.over, Percentile: c.percentile, Timespan: c.timespan, Bounds: c.bounds, Need: c.need}
	bases, err := l.bases(d, c.rules)
	if err != nil {
		return err
	}
	among, err := l.bases(d, c.among)
	if err != nil {
		return err
	}
	height := 1
	for _, b := range bases {
		height = max(height, l.links[b].height+1)
	}
	if height > maxChain {
		return d.errorf(d.keys["correlation"], "correlation: more than %d one above the other", maxChain)
	}
	r.inherit(d, slices.Concat(bases, among))
	groupBy, err := l.sources(d, c, r)
	if err != nil {
		return err
	}
	if !l.used[d] || l.alone[d] {
		if r.Alert, err = d.alert(r, l.fields, groupBy, c.threshold()); err != nil {
			return err
		}
	}
	l.rules[d] = r
	l.order = append(l.order, r)
	l.links[r] = links{bases, among, height}
	return nil
}

// inherit takes from the rules that a correlation counts what it does not say
// itself. One of the catalog has little more than a title; its detection says what
// it is about.
func (r *Rule) inherit(d *document, bases []*Rule) {
	for _, b := range bases {
		if d.text("level") == "" && CompareLevels(b.Level, r.Level) > 0 {
			r.Level = b.Level
		}
		r.Types = append(r.Types, b.Types...)
	}
	if slices.ContainsFunc(bases, func(b *Rule) bool { return b.Types == nil }) {
		r.Types = nil
	}
	slices.Sort(r.Types)
	r.Types = slices.Compact(r.Types)
	first := bases[0]
	if r.Tags == nil {
		r.Tags = first.Tags
	}
	if r.Description == "" {
		r.Description = first.Description
	}
	if r.Prevention == "" {
		r.Prevention = first.Prevention
	}
	if r.FalsePositives == nil {
		r.FalsePositives = first.FalsePositives
	}
}

// sources finds out where each rule of a correlation has its fields. It returns
// the names by which alerts are grouped.
func (l *loader) sources(d *document, c *correlation, r *Rule) (groupBy []Field, err error) {
	n := d.keys["correlation"]
	groups, err := texts(c.groupBy)
	if err != nil {
		return nil, d.errorf(n, "correlation.group-by: %w", err)
	}
	values, err := texts(c.values)
	if err != nil {
		return nil, d.errorf(n, "correlation.condition.field: %w", err)
	}
	if len(values) > 1 && c.typ != ValueCount {
		return nil, d.errorf(n, "correlation.condition.field: %s is about one field", c.typ)
	}
	aliases, err := l.aliases(d, c)
	if err != nil {
		return nil, err
	}
	for k := range c.rules {
		s := Source{}
		for i, names := range [][]string{groups, values} {
			for _, name := range names {
				if name == "" {
					return nil, d.errorf(n, "correlation: a field has no name")
				}
				path := cmp.Or(aliases[name][k], name)
				field := l.fields.field(path)
				switch {
				case i == 0:
					s.GroupBy = append(s.GroupBy, field)
				case !slices.Contains(s.Values, field):
					s.Values = append(s.Values, field)
				}
			}
		}
		r.Correlation.Sources = append(r.Correlation.Sources, s)
	}
	for i, name := range groups {
		f := r.Correlation.Sources[0].GroupBy[i]
		if c.aliases[name] != nil {
			f.Path = name
		}
		groupBy = append(groupBy, f)
	}
	return groupBy, nil
}

// aliases finds out of which of a correlation's rules each alias speaks: like these, it
// may do so by id or name. It returns the fields, by alias and rule.
func (l *loader) aliases(d *document, c *correlation) (map[string]map[int]string, error) {
	n := d.keys["correlation"]
	all := map[string]map[int]string{}
	for _, alias := range slices.Sorted(maps.Keys(c.aliases)) {
		all[alias] = map[int]string{}
		for _, rule := range slices.Sorted(maps.Keys(c.aliases[alias])) {
			meant := l.find(d, rule)
			k := slices.IndexFunc(c.rules, func(ref string) bool { return meant != nil && l.find(d, ref) == meant })
			if k < 0 {
				return nil, d.errorf(n, "correlation.aliases.%s: %q is not among the correlation's rules", alias, rule)
			}
			field := c.aliases[alias][rule]
			if other, ok := all[alias][k]; ok && other != field {
				return nil, d.errorf(n, "correlation.aliases.%s: of the same rule it is both %s and %s", alias, other, field)
			}
			all[alias][k] = field
		}
	}
	return all, nil
}

// bases resolves a correlation's references. A correlation among them is compiled
// first.
func (l *loader) bases(d *document, names []string) ([]*Rule, error) {
	n := d.keys["correlation"]
	var list []*Rule
	var docs []*document
	for _, name := range names {
		base := l.find(d, name)
		switch {
		case base == nil:
			return nil, d.errorf(n, "correlation refers to %q, which no rule is called", name)
		case slices.Contains(l.busy, base):
			return nil, d.errorf(n, "correlation refers to %q, which refers to it", name)
		case slices.Contains(docs, base):
			return nil, d.errorf(n, "correlation refers to %q and to %q, which are one rule", names[slices.Index(docs, base)], name)
		case len(l.busy) > maxChain:
			return nil, d.errorf(n, "correlation of %q: more than %d one above the other", name, maxChain)
		case base.kind == kindCorrelation && l.rules[base] == nil && l.errs[base] == nil:
			if err := l.correlation(base); err != nil {
				l.errs[base] = err
			}
		}
		switch {
		case l.rules[base] == nil:
			return nil, d.errorf(n, "correlation refers to %q: %w", name, l.errs[base])
		case base.kind == kindCorrelation && d.keys[keyCorrelation] != nil:
			return nil, d.errorf(n, "%s of the correlation %q: %w", keyCorrelation, name, notSupported("what is no event"))
		case base.kind == kindCorrelation && l.rules[base].Correlation.Type == LastEvents:
			return nil, d.errorf(n, "correlation of %q: %w", name, notSupported(LastEvents+" as what is counted"))
		}
		list, docs = append(list, l.rules[base]), append(docs, base)
	}
	return list, nil
}

// filter compiles a filter document and gives it to the detections it names:
// they match where their own condition and the filter's hold.
func (l *loader) filter(d *document) error {
	if d.title == "" {
		return d.errorf(nil, "title is missing")
	}
	n := d.keys["filter"]
	entries, err := mapping(n)
	if err != nil {
		return d.errorf(n, "filter: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.key == "rules" {
			if names, err = texts(e.value); err != nil {
				return d.errorf(e.value, "filter.rules: %w", err)
			}
		}
	}
	if len(names) == 0 {
		return d.errorf(n, "filter.rules is missing")
	}
	targets, err := l.targets(d, names)
	if err != nil {
		return err
	}
	vars, err := l.docVars(d)
	if err != nil {
		return err
	}
	x, o, warnings, err := compileDetection(d, n, l.fields, vars, "rules")
	l.fates[d].Warnings = append(l.fates[d].Warnings, warnings...)
	if err != nil {
		return err
	}
	added := *o // its only search identifier may be o itself, which has a name
	added.filter = d.title
	for _, target := range targets {
		l.filters[target] = append(l.filters[target], filter{x, &added})
	}
	return nil
}

// targets returns those of the detections that a filter names which it fits, or with
// "any" all of its log source. The others are warnings; without any that it fits, the
// first of them is an error.
func (l *loader) targets(d *document, names []string) ([]*document, error) {
	var list []*document
	if len(names) == 1 && names[0] == "any" {
		for _, t := range l.docs {
			if t.kind == kindDetection && t.replacedBy == nil && sameSource(d, t) {
				list = append(list, t)
			}
		}
		return list, nil
	}
	var first error
	for _, name := range names {
		t := l.find(d, name)
		var err error
		switch {
		case t == nil:
			err = d.errorf(d.keys["filter"], "filter refers to %q, which no rule is called", name)
		case t.kind != kindDetection:
			err = d.errorf(d.keys["filter"], "filter of the correlation %q: %w", name, notSupported("a filter of correlations"))
		case !sameSource(d, t):
			err = d.errorf(d.keys["logsource"], "%q is a rule for another log source", name)
		case !slices.Contains(list, t):
			list = append(list, t)
		}
		if err != nil {
			l.fates[d].Warnings = append(l.fates[d].Warnings, err.Error())
			first = cmp.Or(first, err)
		}
	}
	if len(list) == 0 {
		l.fates[d].Warnings = nil
		return nil, first
	}
	return list, nil
}

// sameSource reports whether all that the filter says of its log source holds
// for the detection's.
func sameSource(filter, detection *document) bool {
	want, _ := mapping(filter.keys["logsource"])
	have, _ := mapping(detection.keys["logsource"])
	for _, w := range want {
		if w.key != "definition" && !slices.ContainsFunc(have, func(h entry) bool {
			return h.key == w.key && strings.EqualFold(h.value.Value, w.value.Value)
		}) {
			return false
		}
	}
	return true
}

// finish drops the detections that nothing needs and numbers the rest.
func (l *loader) finish() (*Set, *Report) {
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
	for _, r := range l.order {
		if r.Alert != nil {
			need(r)
		}
	}
	l.fields.root.seal()
	set := newSet(l.fields.root, len(l.fields.slots))
	index := map[*Rule]int{}
	for _, r := range l.order {
		if r.Alert != nil || needed[r] {
			index[r] = len(set.rules)
			set.rules = append(set.rules, r)
		}
	}
	for r, link := range l.links {
		for i, b := range link.rules {
			r.Correlation.Sources[i].Rule = index[b]
		}
		for _, b := range link.among {
			r.Correlation.Among = append(r.Correlation.Among, index[b])
		}
	}
	report := &Report{Documents: l.broken}
	for _, fate := range l.overlayFates {
		report.Documents = append(report.Documents, *fate)
	}
	for _, d := range l.docs {
		fate := l.fates[d]
		if r := l.rules[d]; r != nil && r.Alert == nil && !needed[r] {
			fate.Status, fate.Reason = Disabled, "it only serves a correlation that does not run"
		}
		report.Documents = append(report.Documents, *fate)
	}
	return set, report
}

// longestReason bounds what is told of a document, in bytes: it may quote what is
// written there.
const longestReason = 1000

// reason is an error in words; of a long one, its beginning and its end.
func reason(err error) string {
	text := err.Error()
	if len(text) <= longestReason {
		return text
	}
	half := longestReason / 2
	return strings.ToValidUTF8(text[:half], "") + " … " + strings.ToValidUTF8(text[len(text)-half:], "")
}
