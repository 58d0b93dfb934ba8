package rules

import (
	"go.yaml.in/yaml/v3"
)

// outline is a compiled condition as written in its rule, for explanations. A Matcher does not
// use it: it runs the expr, whose tests are the leaves of both.
type outline struct {
	op     string // and, or, not; empty for a leaf
	parts  []*outline
	leaf   expr
	search string
	filter string
	key    string // as written: a field with its modifiers; for keywords, only the modifiers
	want   []Value
	file   string
	line   int
}

// outlined parses conditions that are compiled already a second time, into their outline.
func (d *detection) outlined(conditions []*yaml.Node) (*outline, error) {
	join := func(op string) func([]*outline) *outline {
		return func(parts []*outline) *outline { return &outline{op: op, parts: parts} }
	}
	known := map[string]*outline{}
	lookup := func(name string) (*outline, error) {
		if tree := known[name]; tree != nil {
			return tree, nil
		}
		tree, err := d.outlineOf(d.searches[name], d.compiled[name])
		if err != nil {
			return nil, err
		}
		tree.search, known[name] = name, tree
		return tree, nil
	}

	// Parse with the same parser, so that both trees have the same shape.
	var list []*outline
	for _, child := range conditions {
		parser := condition[*outline]{
			names:  d.names,
			lookup: lookup,
			allOf:  join(OpAnd),
			anyOf:  join(OpOr),
			negate: func(x *outline) *outline { return &outline{op: OpNot, parts: []*outline{x}} },
		}
		tree, err := parser.parse(child.Value)
		if err != nil {
			return nil, d.doc.errorf(child, "%w", err)
		}
		list = append(list, tree)
	}

	if len(list) == 1 {
		return list[0], nil
	}
	return &outline{op: OpOr, parts: list}, nil
}

// outlineOf returns the outline of an expression that item compiled.
func (d *detection) outlineOf(n *yaml.Node, x expr) (*outline, error) {
	switch n.Kind {
	case yaml.MappingNode:
		return d.outlineMap(n, x)
	case yaml.SequenceNode:
		return d.outlineList(n, x)
	}
	return &outline{leaf: x, file: d.doc.file, line: n.Line, want: []Value{scalarOf(n)}}, nil
}

func (d *detection) outlineMap(node *yaml.Node, x expr) (*outline, error) {
	entries, err := mapping(node)
	if err != nil {
		return nil, err
	}
	if len(entries) == 1 {
		// A single field is compiled without an and.
		return d.outlineField(entries[0], x)
	}

	tree := &outline{op: OpAnd, file: d.doc.file, line: node.Line}
	for i, entry := range entries {
		part, err := d.outlineField(entry, x.(and)[i])
		if err != nil {
			return nil, err
		}
		tree.parts = append(tree.parts, part)
	}
	return tree, nil
}

func (d *detection) outlineList(node *yaml.Node, x expr) (*outline, error) {
	tree := &outline{op: OpOr, file: d.doc.file, line: node.Line}
	for i, child := range node.Content {
		part, err := d.outlineOf(child, x.(or)[i])
		if err != nil {
			return nil, err
		}
		tree.parts = append(tree.parts, part)
	}

	// A list of one is its member.
	if len(tree.parts) == 1 {
		return tree.parts[0], nil
	}
	return tree, nil
}

// outlineField returns the outline of one field of a search identifier, or of its keywords.
func (d *detection) outlineField(e entry, x expr) (*outline, error) {
	nodes := []*yaml.Node{e.value}
	if e.value.Kind == yaml.SequenceNode {
		nodes = e.value.Content
	}

	_, names := splitKey(e.key)
	mods, err := parseModifiers(names)
	if err != nil {
		return nil, err
	}

	tree := &outline{leaf: x, key: e.key, file: d.doc.file, line: e.line}

	// Resolve placeholders again, to show the values that were compared.
	for _, node := range nodes {
		scalars, err := d.values(node, mods)
		if err != nil {
			return nil, err
		}
		for _, node := range scalars {
			tree.want = append(tree.want, scalarOf(node))
		}
	}

	return tree, nil
}

// scalarOf returns a scalar as written in a rule.
func scalarOf(n *yaml.Node) Value {
	switch n.Tag {
	case "!!null":
		return Value{Text: "null"}
	case "!!int", "!!float", "!!bool":
		return Value{Text: n.Value}
	}
	return Value{Text: n.Value, Quoted: true}
}

// leaves calls yield for every test.
func (o *outline) leaves(yield func(*outline)) {
	if o.op == "" {
		yield(o)
	}
	for _, part := range o.parts {
		part.leaves(yield)
	}
}
