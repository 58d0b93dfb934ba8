package rules

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// maxChain is the maximum depth of correlations that refer to correlations.
const maxChain = 10

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
	maps.Copy(vars, l.common)
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

// correlation compiles a correlation document, after the correlations that it refers to.
func (l *loader) correlation(doc *document) error {
	// References back to a correlation that is being compiled are errors: see bases.
	l.compiling = append(l.compiling, doc)
	defer func() { l.compiling = l.compiling[:len(l.compiling)-1] }()

	rule, err := doc.rule()
	if err != nil {
		return err
	}
	corr, err := doc.correlation(func(ref string) *document { return l.find(doc, ref) })
	if err != nil {
		return err
	}
	l.reports[doc].Warnings = append(l.reports[doc].Warnings, corr.warnings...)

	// Sources and Among are added below and, as indexes, by finish.
	rule.Correlation = &Correlation{Spec: corr.Spec}

	bases, err := l.bases(doc, corr.rules)
	if err != nil {
		return err
	}
	among, err := l.bases(doc, corr.among)
	if err != nil {
		return err
	}

	// A correlation is one level above the highest of those that it counts.
	height := 1
	for _, base := range bases {
		height = max(height, l.links[base].height+1)
	}

	if height > maxChain {
		return doc.errorf(doc.keys["correlation"], "correlation: more than %d one above the other", maxChain)
	}

	// The level of the alert may come from the rules that are counted.
	rule.inherit(doc, slices.Concat(bases, among))
	groupBy, err := l.addSources(doc, corr, rule)
	if err != nil {
		return err
	}
	if l.alerts(doc) {
		if rule.Alert, err = doc.alert(rule, l.fields, groupBy, corr.Threshold()); err != nil {
			return err
		}
	}

	l.rules[doc] = rule
	l.order = append(l.order, rule)
	l.links[rule] = links{bases, among, height}
	return nil
}

// inherit fills in, from the rules that a correlation counts, what the correlation itself
// leaves out. A correlation of the catalog has little more than a title; its detection has the rest.
func (r *Rule) inherit(doc *document, bases []*Rule) {
	// Take the highest level and the union of the types.
	for _, base := range bases {
		if doc.text("level") == "" && CompareLevels(base.Level, r.Level) > 0 {
			r.Level = base.Level
		}
		r.Types = append(r.Types, base.Types...)
	}

	if slices.ContainsFunc(bases, func(base *Rule) bool { return base.Types == nil }) {
		// One that matches any type makes the whole match any.
		r.Types = nil
	}

	slices.Sort(r.Types)
	r.Types = slices.Compact(r.Types)

	// Take the texts of the first rule: mixing several would make no sense.
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

// addSources resolves the fields that a correlation groups by and counts, for each of its
// rules. It returns the names by which alerts are grouped.
func (l *loader) addSources(doc *document, corr *correlationKeys, rule *Rule) (groupBy []expr.Field, err error) {
	node := doc.keys["correlation"]
	groups, err := texts(corr.groupBy)
	if err != nil {
		return nil, doc.errorf(node, "correlation.group-by: %w", err)
	}
	values, err := texts(corr.values)
	if err != nil {
		return nil, doc.errorf(node, "correlation.condition.field: %w", err)
	}
	if len(values) > 1 && corr.Type.Traits().Value != correlation.ValueHash {
		return nil, doc.errorf(node, "correlation.condition.field: %s takes one field", corr.Type.Name())
	}
	aliases, err := l.aliases(doc, corr)
	if err != nil {
		return nil, err
	}
	if slices.Contains(groups, "") || slices.Contains(values, "") {
		return nil, doc.errorf(node, "correlation: a field has no name")
	}

	// An alias may stand for another field in each rule.
	for index := range corr.rules {
		source := Source{}
		for _, name := range groups {
			source.GroupBy = append(source.GroupBy, l.fields.Field(cmp.Or(aliases[name][index], name)))
		}

		for _, name := range values {
			field := l.fields.Field(cmp.Or(aliases[name][index], name))
			if !slices.Contains(source.Values, field) {
				source.Values = append(source.Values, field)
			}
		}

		rule.Correlation.Sources = append(rule.Correlation.Sources, source)
	}

	// An alert shows the alias, if there is one, instead of the first rule's field.
	for i, name := range groups {
		field := rule.Correlation.Sources[0].GroupBy[i]
		if corr.aliases[name] != nil {
			field.Path = name
		}
		groupBy = append(groupBy, field)
	}

	return groupBy, nil
}

// aliases resolves the rules that each alias of a correlation names, by id or name. It returns
// the field by alias and index of the rule.
func (l *loader) aliases(doc *document, corr *correlationKeys) (map[string]map[int]string, error) {
	node := doc.keys["correlation"]
	all := map[string]map[int]string{}
	for _, alias := range slices.Sorted(maps.Keys(corr.aliases)) {
		all[alias] = map[int]string{}
		for _, rule := range slices.Sorted(maps.Keys(corr.aliases[alias])) {
			meant := l.find(doc, rule)
			index := slices.IndexFunc(corr.rules, func(ref string) bool {
				return meant != nil && l.find(doc, ref) == meant
			})
			if index < 0 {
				return nil, doc.errorf(node, "correlation.aliases.%s: %q is not among the correlation's rules",
					alias, rule)
			}

			// The rule may be listed by its id and by its name.
			field := corr.aliases[alias][rule]
			if other, ok := all[alias][index]; ok && other != field {
				return nil, doc.errorf(node, "correlation.aliases.%s: both %s and %s for the same rule",
					alias, other, field)
			}
			all[alias][index] = field
		}
	}

	return all, nil
}

// bases resolves a correlation's references. It compiles correlations among them first.
func (l *loader) bases(doc *document, names []string) ([]*Rule, error) {
	node := doc.keys["correlation"]
	var bases []*Rule
	var docs []*document
	for _, name := range names {
		base := l.find(doc, name)

		// Find the document, and compile it first if it is a correlation.
		switch {
		case base == nil:
			return nil, doc.errorf(node, "correlation refers to %q, but no rule has that id or name", name)
		case slices.Contains(l.compiling, base):
			return nil, doc.errorf(node, "correlation refers to %q, which refers back to it", name)
		case slices.Contains(docs, base):
			return nil, doc.errorf(node, "correlation refers to %q and to %q, which are the same rule",
				names[slices.Index(docs, base)], name)
		case len(l.compiling) > maxChain:
			return nil, doc.errorf(node, "correlation of %q: more than %d one above the other", name, maxChain)
		case base.kind == kindCorrelation && l.rules[base] == nil && l.errs[base] == nil:
			if err := l.correlation(base); err != nil {
				l.errs[base] = err
			}
		}

		switch {
		// Its own error is part of this one, so that the report has the cause.
		case l.rules[base] == nil:
			return nil, doc.errorf(node, "correlation refers to %q: %w", name, l.errs[base])
		case base.kind == kindCorrelation && doc.keys[correlation.OwnKey] != nil:
			return nil, doc.errorf(node, "%s of the correlation %q: %w", correlation.OwnKey, name,
				notSupported("counting anything but events"))
		case base.kind == kindCorrelation && l.rules[base].Correlation.Last > 0:
			refused := notSupported("counting " + l.rules[base].Correlation.Type.Name())
			return nil, doc.errorf(node, "correlation of %q: %w", name, refused)
		}

		bases, docs = append(bases, l.rules[base]), append(docs, base)
	}

	return bases, nil
}

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
