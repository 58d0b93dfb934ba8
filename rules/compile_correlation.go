package rules

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// maxChain is the maximum depth of correlations that refer to correlations.
const maxChain = 10

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
