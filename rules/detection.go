package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// detection compiles the search identifiers and the condition of one document.
type detection struct {
	doc      *document
	fields   *fields
	vars     Vars
	names    []string // of the search identifiers
	searches map[string]*yaml.Node
	compiled map[string]expr // the searches that the condition has named so far
	missing  missingVars
	warnings []string
}

// compileDetection compiles a mapping, which has search identifiers and a condition, into
// an expression and its outline. Keys in skip are ignored.
func compileDetection(doc *document, node *yaml.Node, f *fields, vars Vars, skip ...string) (
	match expr, tree *outline, warnings []string, err error) {
	det := &detection{doc: doc, fields: f, vars: vars, searches: map[string]*yaml.Node{}, compiled: map[string]expr{}}
	entries, err := mapping(node)
	if err != nil {
		return nil, nil, nil, doc.errorf(node, "%w", err)
	}

	// Separate the condition from the search identifiers.
	var conditions []*yaml.Node
	for _, entry := range entries {
		switch {
		case entry.key == "condition":
			conditions = []*yaml.Node{entry.value}
			if entry.value.Kind == yaml.SequenceNode {
				// A list of conditions is a disjunction, as in Sigma 1.
				conditions = entry.value.Content
			}
		case entry.key == "timeframe":
			return nil, nil, nil, doc.errorf(entry.value, "detection.timeframe is not supported; write a correlation")
		case slices.Contains(skip, entry.key):
		default:
			det.searches[entry.key] = entry.value
			det.names = append(det.names, entry.key)
		}
	}

	if len(conditions) == 0 {
		return nil, nil, nil, doc.errorf(node, "detection has no condition")
	}

	// The order of "1 of them" must not depend on the file.
	slices.Sort(det.names)

	var alternatives or
	for _, child := range conditions {
		part, err := det.condition(child)
		if err != nil {
			return nil, nil, nil, err
		}
		alternatives = append(alternatives, part)
	}

	// Report all missing variables at once, not only the first.
	if len(det.missing) > 0 {
		slices.Sort(det.missing)
		return nil, nil, det.warnings, slices.Compact(det.missing)
	}

	// The outline needs the compiled searches, which are complete now.
	if tree, err = det.outlined(conditions); err != nil {
		return nil, nil, nil, err
	}
	if len(alternatives) == 1 {
		return alternatives[0], tree, det.warnings, nil
	}
	return alternatives, tree, det.warnings, nil
}

// condition compiles one condition and the search identifiers that it names.
func (d *detection) condition(node *yaml.Node) (expr, error) {
	parser := condition[expr]{
		names:  d.names,
		lookup: d.search,
		allOf:  func(list []expr) expr { return and(list) },
		anyOf:  func(list []expr) expr { return or(list) },
		negate: func(x expr) expr { return not{x} },
	}
	compiled, err := parser.parse(node.Value)
	if err != nil {
		return nil, d.doc.errorf(node, "%w", err)
	}
	return compiled, nil
}

// search compiles a search identifier: a map is a conjunction of fields, a list
// a disjunction of maps or of keywords.
func (d *detection) search(name string) (expr, error) {
	if compiled, ok := d.compiled[name]; ok {
		return compiled, nil
	}
	node := d.searches[name]
	if node == nil {
		return nil, fmt.Errorf("no search identifier %q", name)
	}
	compiled, err := d.item(node)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	d.compiled[name] = compiled
	return compiled, nil
}

// item compiles a search identifier, or one member of a list of alternatives.
func (d *detection) item(n *yaml.Node) (expr, error) {
	switch n.Kind {
	case yaml.MappingNode:
		return d.allFields(n)
	case yaml.SequenceNode:
		return d.anyItem(n)
	case yaml.ScalarNode:
		return d.keywords([]*yaml.Node{n}, modifiers{})
	}
	return nil, fmt.Errorf("line %d: want a map or a list", n.Line)
}

// allFields compiles a map: all of its fields must match.
func (d *detection) allFields(node *yaml.Node) (expr, error) {
	entries, err := mapping(node)
	if err != nil {
		return nil, err
	}

	var all and
	for _, entry := range entries {
		part, err := d.field(entry.key, entry.value)
		if err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", entry.line, entry.key, err)
		}
		all = append(all, part)
	}

	switch len(all) {
	case 0:
		return nil, fmt.Errorf("line %d: the map is empty", node.Line)
	case 1:
		return all[0], nil
	}

	return all, nil
}

// anyItem compiles a list: one of its members must match.
func (d *detection) anyItem(node *yaml.Node) (expr, error) {
	var alternatives or
	for _, child := range node.Content {
		if child.Kind == yaml.SequenceNode {
			return nil, fmt.Errorf("line %d: a list in a list has no meaning", child.Line)
		}
		part, err := d.item(child)
		if err != nil {
			return nil, err
		}
		alternatives = append(alternatives, part)
	}

	if len(alternatives) == 0 {
		return nil, fmt.Errorf("line %d: the list is empty", node.Line)
	}
	return alternatives, nil
}

// keywords compiles values that may be anywhere in an event. Without a modifier for how to
// compare, a value may be a part of a text.
func (d *detection) keywords(nodes []*yaml.Node, mods modifiers) (*test, error) {
	if mods.op == "exists" || mods.ref || mods.part != "" {
		return nil, errors.New("keywords take no modifier that needs a field")
	}
	if mods.op == "" {
		mods.op, mods.shape = "contains", contains
	}

	// An empty text would match every event.
	for _, node := range nodes {
		if node.Tag == "!!null" || node.Kind == yaml.ScalarNode && node.Value == "" {
			return nil, fmt.Errorf("line %d: a keyword must be text", node.Line)
		}
	}
	return d.test(Field{slot: everywhere}, nodes, mods)
}

// field compiles one entry of a map: a field with modifiers and its values. Without a field
// name, the values are keywords.
func (d *detection) field(key string, node *yaml.Node) (expr, error) {
	name, modifierNames := splitKey(key)
	mods, err := parseModifiers(modifierNames)
	if err != nil {
		return nil, err
	}

	// A single value is a list of one.
	nodes := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		if nodes = node.Content; len(nodes) == 0 {
			return nil, fmt.Errorf("line %d: the list is empty", node.Line)
		}
	}

	if name == "" {
		return d.keywords(nodes, mods)
	}

	// exists takes one boolean, not values to compare with.
	if mods.op == "exists" {
		var want bool
		if len(nodes) != 1 || nodes[0].Tag != "!!bool" || nodes[0].Decode(&want) != nil {
			return nil, errors.New("exists needs true or false")
		}
		return exists{d.fields.field(name), want}, nil
	}
	return d.test(d.fields.field(name), nodes, mods)
}

// test compiles the values of one field, or of keywords.
func (d *detection) test(field Field, nodes []*yaml.Node, mods modifiers) (*test, error) {
	compiled := &test{field: field, all: mods.all, negate: mods.neq}

	// The key is equal for equal tests.
	key := fmt.Appendf(nil, "%d %q %+v", field.slot, field.Path, mods)
	texts := oneOf{}
	for _, node := range nodes {
		// Placeholders may turn one value into several.
		scalars, err := d.values(node, mods)
		if err != nil {
			return nil, err
		}

		for _, node := range scalars {
			key = fmt.Appendf(key, " %s %q", node.Tag, node.Value)

			// Null matches an absent field; it cannot be compared in any other way.
			if node.Tag == "!!null" && !mods.ref {
				if mods.op != "" || mods.part != "" {
					return nil, fmt.Errorf("null cannot be compared with %s", strings.Join(mods.names, "|"))
				}
				compiled.absent = true
				continue
			}

			check, err := d.checkEncoded(node, mods)
			if err != nil {
				return nil, err
			}

			// Plain texts share one map, so that a long list costs one lookup.
			if pat, ok := check.(pattern); ok && pat.shape == exact && !pat.cased && !compiled.all {
				texts[pat.text] = struct{}{}
				continue
			}
			compiled.checks = append(compiled.checks, check)
		}
	}

	// The map comes first: it is the cheapest check.
	if len(texts) > 0 {
		compiled.checks = slices.Insert(compiled.checks, 0, check(texts))
	}

	compiled.gather()
	return d.fields.shared(string(key), compiled), nil
}

// checkEncoded compiles one value, in all of the forms that the encoding modifiers give it.
func (d *detection) checkEncoded(node *yaml.Node, mods modifiers) (check, error) {
	if len(mods.encodings) == 0 {
		return d.check(node, mods)
	}
	forms, err := encoded(node, mods.encodings)
	if err != nil {
		return nil, err
	}

	var alternatives anyOf
	for _, form := range forms {
		check, err := d.check(form, mods)
		if err != nil {
			return nil, err
		}
		alternatives = append(alternatives, check)
	}
	return alternatives, nil
}

// check compiles one value.
func (d *detection) check(node *yaml.Node, mods modifiers) (check, error) {
	numeric := node.Tag == "!!int" || node.Tag == "!!float"
	switch {
	case mods.ref:
		if node.Value == "" || node.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: fieldref needs the name of a field", node.Line)
		}
		return fieldRef{other: d.fields.field(node.Value), shape: mods.shape, cased: mods.cased}, nil
	case mods.part != "" || mods.ordered():
		return orderingOf(node, mods)
	case mods.op == "cidr":
		return networkOf(node)
	case mods.op == "re":
		return d.regex(node, mods)
	case numeric && mods.op == "":
		// 0x10 and 1_000 are numbers to YAML alone: compare them as written.
		if num, err := strconv.ParseFloat(node.Value, 64); err == nil {
			return number{text: node.Value, f: num}, nil
		}
	}

	// Everything else is a Sigma string; the modifiers are wildcards around it.
	text := parsePattern(node.Value)
	switch mods.shape {
	case contains:
		text = slices.Concat([]rune{wildMany}, text, []rune{wildMany})
	case prefix:
		text = append(text, wildMany)
	case suffix:
		text = slices.Concat([]rune{wildMany}, text)
	}

	return newPattern(text, mods.cased), nil
}

// orderingOf compiles a comparison with a number, of the value or of a part of a timestamp.
func orderingOf(n *yaml.Node, mods modifiers) (check, error) {
	limit, ok := (&value{kind: kindString, text: []byte(n.Value)}).number()
	if !ok {
		return nil, fmt.Errorf("line %d: %q is not a number", n.Line, n.Value)
	}
	if mods.part != "" {
		return timePart{mods.part, ordering{mods.op, n.Value, limit}}, nil
	}
	return ordering{mods.op, n.Value, limit}, nil
}

// networkOf compiles the prefix of cidr.
func networkOf(n *yaml.Node) (check, error) {
	prefix, err := netip.ParsePrefix(n.Value)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		// Addresses of events are unmapped as well.
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return network(prefix.Masked()), nil
}
