package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// detection compiles the search identifiers and the condition of one document.
type detection struct {
	doc      *document
	fields   *expr.Fields
	vars     Vars
	names    []string // of the search identifiers
	searches map[string]*yaml.Node
	compiled map[string]*expr.Tree // the searches that the condition has named so far
	missing  missingVars
	warnings []string
}

// compileDetection compiles a mapping, which has search identifiers and a condition. Keys in skip
// are ignored. Warnings are returned also with an error.
func compileDetection(doc *document, node *yaml.Node, f *expr.Fields, vars Vars, skip ...string) (
	match *expr.Tree, warnings []string, err error) {
	det := &detection{doc: doc, fields: f, vars: vars,
		searches: map[string]*yaml.Node{}, compiled: map[string]*expr.Tree{}}
	entries, err := mapping(node)
	if err != nil {
		return nil, nil, doc.errorf(node, "%w", err)
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
			return nil, nil, doc.errorf(entry.value, "detection.timeframe is not supported; write a correlation")
		case slices.Contains(skip, entry.key):
		default:
			det.searches[entry.key] = entry.value
			det.names = append(det.names, entry.key)
		}
	}

	if len(conditions) == 0 {
		return nil, nil, doc.errorf(node, "detection has no condition")
	}

	// The order of "1 of them" must not depend on the file.
	slices.Sort(det.names)

	var alternatives []*expr.Tree
	for _, child := range conditions {
		part, err := det.condition(child)
		if err != nil {
			return nil, nil, err
		}
		alternatives = append(alternatives, part)
	}

	// Report all missing variables at once, not only the first.
	if len(det.missing) > 0 {
		slices.Sort(det.missing)
		return nil, det.warnings, slices.Compact(det.missing)
	}

	if len(alternatives) == 1 {
		return alternatives[0], det.warnings, nil
	}
	return expr.Or(alternatives), det.warnings, nil
}

// condition compiles one condition and the search identifiers that it names.
func (d *detection) condition(node *yaml.Node) (*expr.Tree, error) {
	parser := condition[*expr.Tree]{names: d.names, lookup: d.search, allOf: expr.And, anyOf: expr.Or, negate: expr.Not}
	compiled, err := parser.parse(node.Value)
	if err != nil {
		return nil, d.doc.errorf(node, "%w", err)
	}
	return compiled, nil
}

// search compiles a search identifier: a map is a conjunction of fields, a list
// a disjunction of maps or of keywords.
func (d *detection) search(name string) (*expr.Tree, error) {
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
	compiled.Search, d.compiled[name] = name, compiled
	return compiled, nil
}

// item compiles a search identifier, or one member of a list of alternatives.
func (d *detection) item(n *yaml.Node) (*expr.Tree, error) {
	switch n.Kind {
	case yaml.MappingNode:
		return d.allFields(n)
	case yaml.SequenceNode:
		return d.anyItem(n)
	case yaml.ScalarNode:
		return d.keywords([]*yaml.Node{n}, modifiers{}, n.Line)
	}
	return nil, fmt.Errorf("line %d: want a map or a list", n.Line)
}

// allFields compiles a map: all of its fields must match.
func (d *detection) allFields(node *yaml.Node) (*expr.Tree, error) {
	entries, err := mapping(node)
	if err != nil {
		return nil, err
	}

	var all []*expr.Tree
	for _, entry := range entries {
		part, err := d.field(entry)
		if err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", entry.line, entry.key, err)
		}
		all = append(all, part)
	}

	if len(all) == 0 {
		return nil, fmt.Errorf("line %d: the map is empty", node.Line)
	}
	return d.join(expr.And, all, node), nil
}

// anyItem compiles a list: one of its members must match.
func (d *detection) anyItem(node *yaml.Node) (*expr.Tree, error) {
	var alternatives []*expr.Tree
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
	return d.join(expr.Or, alternatives, node), nil
}

// join combines the parts of a map or a list, of which one alone needs no combination.
func (d *detection) join(combine func([]*expr.Tree) *expr.Tree, parts []*expr.Tree, node *yaml.Node) *expr.Tree {
	if len(parts) == 1 {
		return parts[0]
	}
	joined := combine(parts)
	joined.File, joined.Line = d.doc.file, node.Line
	return joined
}

// keywords compiles values that may be anywhere in an event. Without a modifier for how to
// compare, a value may be a part of a text. line is that of the values in the rule.
func (d *detection) keywords(nodes []*yaml.Node, mods modifiers, line int) (*expr.Tree, error) {
	if mods.op == "exists" || mods.ref || mods.part != "" {
		return nil, errors.New("keywords take no modifier that needs a field")
	}
	if mods.op == "" {
		mods.op, mods.shape = "contains", expr.ShapeContains
	}

	// An empty text would match every event.
	for _, node := range nodes {
		if node.Tag == "!!null" || node.Kind == yaml.ScalarNode && node.Value == "" {
			return nil, fmt.Errorf("line %d: a keyword must be text", node.Line)
		}
	}
	return d.test(expr.Anywhere(), nodes, mods, line)
}

// field compiles one entry of a map: a field with modifiers and its values. Without a field
// name, the values are keywords.
func (d *detection) field(e entry) (*expr.Tree, error) {
	name, modifierNames := splitKey(e.key)
	mods, err := parseModifiers(modifierNames)
	if err != nil {
		return nil, err
	}

	// A single value is a list of one.
	nodes := []*yaml.Node{e.value}
	if e.value.Kind == yaml.SequenceNode {
		if nodes = e.value.Content; len(nodes) == 0 {
			return nil, fmt.Errorf("line %d: the list is empty", e.value.Line)
		}
	}

	if name == "" {
		return d.keywords(nodes, mods, e.line)
	}

	// exists takes one boolean, not values to compare with.
	if mods.op == "exists" {
		var want bool
		if len(nodes) != 1 || nodes[0].Tag != "!!bool" || nodes[0].Decode(&want) != nil {
			return nil, errors.New("exists needs true or false")
		}
		tree := &expr.Tree{Leaf: expr.Exists{Field: d.fields.Field(name), Want: want}, Modifiers: mods.names,
			Want: []expr.Value{scalarOf(nodes[0])}, File: d.doc.file, Line: e.line}
		return tree, nil
	}
	return d.test(d.fields.Field(name), nodes, mods, e.line)
}

// test compiles the values of one field, or of keywords.
func (d *detection) test(field expr.Field, nodes []*yaml.Node, mods modifiers, line int) (*expr.Tree, error) {
	compiled := &expr.Test{Field: field, All: mods.all, Negate: mods.neq}
	tree := &expr.Tree{Modifiers: mods.names, File: d.doc.file, Line: line}

	// The key is equal for equal tests.
	key := fmt.Appendf(nil, "%q %+v %+v", field.Path, field, mods)
	for _, node := range nodes {
		// Placeholders may turn one value into several.
		scalars, err := d.values(node, mods)
		if err != nil {
			return nil, err
		}

		for _, node := range scalars {
			key = fmt.Appendf(key, " %s %q", node.Tag, node.Value)
			tree.Want = append(tree.Want, scalarOf(node))

			// Null matches an absent field; it cannot be compared in any other way.
			if node.Tag == "!!null" && !mods.ref {
				if mods.op != "" || mods.part != "" {
					return nil, fmt.Errorf("null cannot be compared with %s", strings.Join(mods.names, "|"))
				}
				compiled.Absent = true
				continue
			}

			check, err := d.checkEncoded(node, mods)
			if err != nil {
				return nil, err
			}
			compiled.Checks = append(compiled.Checks, check)
		}
	}

	tree.Leaf = d.fields.Share(string(key), compiled)
	return tree, nil
}

// checkEncoded compiles one value, in all of the forms that the encoding modifiers give it.
func (d *detection) checkEncoded(node *yaml.Node, mods modifiers) (expr.Check, error) {
	if len(mods.encodings) == 0 {
		return d.check(node, mods)
	}
	forms, err := encoded(node, mods.encodings)
	if err != nil {
		return nil, err
	}

	var alternatives expr.AnyOf
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
func (d *detection) check(node *yaml.Node, mods modifiers) (expr.Check, error) {
	numeric := node.Tag == "!!int" || node.Tag == "!!float"
	switch {
	case mods.ref:
		if node.Value == "" || node.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: fieldref needs the name of a field", node.Line)
		}
		return expr.FieldRef{Other: d.fields.Field(node.Value), Shape: mods.shape, Cased: mods.cased}, nil
	case mods.part != "" || mods.ordered():
		return orderingOf(node, mods)
	case mods.op == "cidr":
		network, err := expr.NewNetwork(node.Value)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", node.Line, err)
		}
		return network, nil
	case mods.op == "re":
		return d.regex(node, mods)
	case numeric && mods.op == "":
		// What is a number to YAML alone is compared as written.
		if number, ok := expr.NewNumber(node.Value); ok {
			return number, nil
		}
	}

	// Everything else is a Sigma string.
	return expr.NewPattern(node.Value, mods.shape, mods.cased), nil
}

// orderingOf compiles a comparison with a number, of the value or of a part of a timestamp.
func orderingOf(n *yaml.Node, mods modifiers) (expr.Check, error) {
	ordering, ok := expr.NewOrdering(mods.op, n.Value)
	if !ok {
		return nil, fmt.Errorf("line %d: %q is not a number", n.Line, n.Value)
	}
	if mods.part != "" {
		return expr.TimePart{Part: mods.part, Ordering: ordering}, nil
	}
	return ordering, nil
}

// regex compiles one regular expression.
func (d *detection) regex(node *yaml.Node, mods modifiers) (expr.Check, error) {
	flags := ""
	for _, flag := range []struct {
		on   bool
		name string
	}{{mods.ignoreCase, "i"}, {mods.multiline, "m"}, {mods.dotAll, "s"}} {
		if flag.on {
			flags += flag.name
		}
	}

	source := node.Value
	if flags != "" {
		source = "(?" + flags + ")" + source
	}

	check, err := expr.NewRegex(source)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", node.Line, err)
	}
	if _, slow := check.(expr.Backtracking); slow {
		d.warnings = append(d.warnings, fmt.Sprintf(
			"%s:%d: RE2 does not support the regular expression, so it backtracks, for at most %v an event",
			d.doc.file, node.Line, expr.RegexBudget))
	}
	return check, nil
}

// scalarOf returns a scalar as written in a rule.
func scalarOf(n *yaml.Node) expr.Value {
	switch n.Tag {
	case "!!null":
		return expr.Value{Text: "null"}
	case "!!int", "!!float", "!!bool":
		return expr.Value{Text: n.Value}
	}
	return expr.Value{Text: n.Value, Quoted: true}
}
