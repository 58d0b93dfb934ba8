package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxExpanded bounds the values that one value with placeholders becomes.
const maxExpanded = 10_000

// missingVars says that a detection cannot be evaluated until variables are set.
type missingVars []string

func (e missingVars) Error() string {
	return "set " + plural(len(e), "the variable ", "the variables ") + strings.Join(e, ", ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// detection compiles the search identifiers and the condition of one document.
type detection struct {
	doc      *document
	fields   *fields
	vars     Vars
	names    []string
	searches map[string]*yaml.Node
	compiled map[string]expr // of searches, those that the condition has named so far
	missing  missingVars
	warnings []string
}

// compileDetection compiles the mapping at n, which has search identifiers and
// a condition, and spells it out; skip names its other keys.
func compileDetection(doc *document, n *yaml.Node, f *fields, vars Vars, skip ...string) (expr, *outline, []string, error) {
	d := &detection{doc: doc, fields: f, vars: vars, searches: map[string]*yaml.Node{}, compiled: map[string]expr{}}
	var conditions []*yaml.Node
	entries, err := mapping(n)
	if err != nil {
		return nil, nil, nil, doc.errorf(n, "%w", err)
	}
	for _, e := range entries {
		switch {
		case e.key == "condition":
			conditions = []*yaml.Node{e.value}
			if e.value.Kind == yaml.SequenceNode {
				conditions = e.value.Content // alternatives, as Sigma 1 had them
			}
		case e.key == "timeframe":
			return nil, nil, nil, doc.errorf(e.value, "detection.timeframe is not supported; write a correlation")
		case slices.Contains(skip, e.key):
		default:
			d.searches[e.key] = e.value
			d.names = append(d.names, e.key)
		}
	}
	if len(conditions) == 0 {
		return nil, nil, nil, doc.errorf(n, "detection has no condition")
	}
	slices.Sort(d.names)
	var list or
	for _, c := range conditions {
		p := condition[expr]{names: d.names, lookup: d.search, allOf: func(list []expr) expr { return and(list) },
			anyOf: func(list []expr) expr { return or(list) }, negate: func(x expr) expr { return not{x} }}
		x, err := p.parse(c.Value)
		if err != nil {
			return nil, nil, nil, doc.errorf(c, "%w", err)
		}
		list = append(list, x)
	}
	if len(d.missing) > 0 {
		slices.Sort(d.missing)
		return nil, nil, d.warnings, slices.Compact(d.missing)
	}
	o, err := d.outlined(conditions)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(list) == 1 {
		return list[0], o, d.warnings, nil
	}
	return list, o, d.warnings, nil
}

// search compiles a search identifier: a map is a conjunction of fields, a list
// an alternative of maps or of keywords.
func (d *detection) search(name string) (expr, error) {
	if x, ok := d.compiled[name]; ok {
		return x, nil
	}
	n := d.searches[name]
	if n == nil {
		return nil, fmt.Errorf("no search identifier %q", name)
	}
	x, err := d.item(n)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	d.compiled[name] = x
	return x, nil
}

func (d *detection) item(n *yaml.Node) (expr, error) {
	switch n.Kind {
	case yaml.MappingNode:
		entries, err := mapping(n)
		if err != nil {
			return nil, err
		}
		var list and
		for _, e := range entries {
			x, err := d.fieldItem(e.key, e.value)
			if err != nil {
				return nil, fmt.Errorf("line %d: %s: %w", e.line, e.key, err)
			}
			list = append(list, x)
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("line %d: the map is empty", n.Line)
		}
		if len(list) == 1 {
			return list[0], nil
		}
		return list, nil
	case yaml.SequenceNode:
		var list or
		for _, c := range n.Content {
			if c.Kind == yaml.SequenceNode {
				return nil, fmt.Errorf("line %d: a list in a list has no meaning", c.Line)
			}
			x, err := d.item(c)
			if err != nil {
				return nil, err
			}
			list = append(list, x)
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("line %d: the list is empty", n.Line)
		}
		return list, nil
	case yaml.ScalarNode:
		return d.keywords([]*yaml.Node{n}, modifiers{})
	}
	return nil, fmt.Errorf("line %d: want a map or a list", n.Line)
}

// keywords compiles values that may stand anywhere in an event. Without a modifier that
// says otherwise, a value may be a part of a text.
func (d *detection) keywords(nodes []*yaml.Node, mods modifiers) (*test, error) {
	if mods.op == "exists" || mods.ref || mods.part != "" {
		return nil, errors.New("keywords take no modifier that is about one field")
	}
	if mods.op == "" {
		mods.op, mods.shape = "contains", contains
	}
	for _, n := range nodes {
		if n.Tag == "!!null" || n.Kind == yaml.ScalarNode && n.Value == "" {
			return nil, fmt.Errorf("line %d: a keyword must be text", n.Line)
		}
	}
	return d.test(Field{slot: everywhere}, nodes, mods)
}

// modifiers is what stands after the | of a field name.
type modifiers struct {
	names                                     []string
	op                                        string // how a value is compared; "" is equality
	shape                                     shape
	all, cased, neq, expand, ref              bool
	part                                      string   // of a timestamp
	encodings                                 []string // see encoded
	ignoreCase, multiline, dotAll, hasReFlags bool
}

func parseModifiers(names []string) (modifiers, error) {
	m := modifiers{names: names}
	set := func(op string) error {
		if m.op != "" {
			return fmt.Errorf("modifiers %s and %s exclude each other", m.op, op)
		}
		m.op = op
		return nil
	}
	for _, name := range names {
		var err error
		switch name {
		case "contains":
			m.shape, err = contains, set(name)
		case "startswith":
			m.shape, err = prefix, set(name)
		case "endswith":
			m.shape, err = suffix, set(name)
		case "re", "cidr", "exists", "lt", "lte", "gt", "gte":
			err = set(name)
		case "i", "m", "s":
			m.hasReFlags = true
			m.ignoreCase = m.ignoreCase || name == "i"
			m.multiline = m.multiline || name == "m"
			m.dotAll = m.dotAll || name == "s"
		case "all":
			m.all = true
		case "cased":
			m.cased = true
		case "neq":
			m.neq = true
		case "expand":
			m.expand = true
		case "fieldref":
			m.ref = true
		case "minute", "hour", "day", "week", "month", "year":
			if m.part != "" {
				err = fmt.Errorf("modifiers %s and %s exclude each other", m.part, name)
			}
			m.part = name
		default:
			if !slices.Contains(encodings, name) {
				err = fmt.Errorf("unknown modifier %q", name)
			}
			m.encodings = append(m.encodings, name)
		}
		if err != nil {
			return m, err
		}
	}
	ordered := m.op == "lt" || m.op == "lte" || m.op == "gt" || m.op == "gte"
	textual := m.op == "" || m.shape != exact
	switch {
	case m.hasReFlags && m.op != "re":
		return m, fmt.Errorf("modifiers i, m and s follow re")
	case m.cased && !textual:
		return m, fmt.Errorf("modifier cased has no meaning with %s", m.op)
	case m.ref && (!textual || m.part != "" || m.expand):
		return m, fmt.Errorf("modifier fieldref does not go with the others")
	case m.part != "" && !(ordered || m.op == ""):
		return m, fmt.Errorf("modifier %s compares numbers, not with %s", m.part, m.op)
	case len(m.encodings) > 0 && (!textual || m.part != "" || m.ref):
		return m, fmt.Errorf("modifier %s encodes text, so it goes with contains, startswith, endswith or none", m.encodings[0])
	case m.op == "exists" && len(names) > 1:
		return m, fmt.Errorf("modifier exists stands alone")
	}
	return m, nil
}

func (d *detection) fieldItem(key string, n *yaml.Node) (expr, error) {
	name, rest, _ := strings.Cut(key, "|")
	var names []string
	if rest != "" {
		names = strings.Split(rest, "|")
	}
	mods, err := parseModifiers(names)
	if err != nil {
		return nil, err
	}
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		if nodes = n.Content; len(nodes) == 0 {
			return nil, fmt.Errorf("line %d: the list is empty", n.Line)
		}
	}
	if name == "" {
		return d.keywords(nodes, mods)
	}
	if mods.op == "exists" {
		var want bool
		if len(nodes) != 1 || nodes[0].Tag != "!!bool" || nodes[0].Decode(&want) != nil {
			return nil, fmt.Errorf("exists wants true or false")
		}
		return exists{d.fields.field(name), want}, nil
	}
	return d.test(d.fields.field(name), nodes, mods)
}

// test compiles the values of one field, or of keywords.
func (d *detection) test(field Field, nodes []*yaml.Node, mods modifiers) (*test, error) {
	t := &test{field: field, all: mods.all, negate: mods.neq}
	said := fmt.Appendf(nil, "%d %q %+v", field.slot, field.Path, mods)
	texts := oneOf{}
	for _, n := range nodes {
		scalars, err := d.values(n, mods)
		if err != nil {
			return nil, err
		}
		for _, n := range scalars {
			said = fmt.Appendf(said, " %s %q", n.Tag, n.Value)
			if n.Tag == "!!null" && !mods.ref {
				if mods.op != "" || mods.part != "" {
					return nil, fmt.Errorf("null cannot be compared with %s", strings.Join(mods.names, "|"))
				}
				t.absent = true
				continue
			}
			c, err := d.checkEncoded(n, mods)
			if err != nil {
				return nil, err
			}
			if p, ok := c.(pattern); ok && p.shape == exact && !p.cased && !t.all {
				texts[p.text] = struct{}{}
				continue
			}
			t.checks = append(t.checks, c)
		}
	}
	if len(texts) > 0 {
		t.checks = slices.Insert(t.checks, 0, check(texts))
	}
	t.gather()
	return d.fields.shared(string(said), t), nil
}

// placeholder is {name}, as Auth0's catalog writes what a reader must fill in: a whole
// value or the host of a URL, in rules for Auth0 only. Sigma's own form is %name% with
// the modifier expand; without that, braces and percent signs are text.
var placeholder = regexp.MustCompile(`^(?:https://)?\{([A-Za-z][A-Za-z0-9_.-]*)\}(?:/|$)`)

// pieces cuts a value into texts and the names of variables between them: there is one
// more text than there are names.
func (d *detection) pieces(n *yaml.Node, mods modifiers) (texts, names []string) {
	if mods.expand {
		return expandable(n.Value)
	}
	at := placeholder.FindStringSubmatchIndex(n.Value)
	switch {
	case at == nil || mods.op == "re" || !d.doc.forAuth0():
		return []string{n.Value}, nil
	case at[2] == 1 && at[3]+1 < len(n.Value): // {name}/…
		return []string{n.Value}, nil
	case guid.MatchString(n.Value[at[2]:at[3]]):
		return []string{n.Value}, nil
	}
	return []string{n.Value[:at[2]-1], n.Value[at[3]+1:]}, []string{n.Value[at[2]:at[3]]}
}

// expandable cuts a value at its placeholders %name%. An escaped \% is a plain percent
// sign, and so is one that no other follows.
func expandable(value string) (texts, names []string) {
	var text []byte
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && i+1 < len(value) && value[i+1] == '%':
			text = append(text, '%')
			i++
			continue
		case value[i] == '\\' && i+1 < len(value) && value[i+1] == '\\':
			text = append(text, `\\`...)
			i++
			continue
		case value[i] == '%':
			if name, _, ok := strings.Cut(value[i+1:], "%"); ok && name != "" && !strings.HasSuffix(name, `\`) {
				texts, names = append(texts, string(text)), append(names, name)
				text = nil
				i += len(name) + 1
				continue
			}
		}
		text = append(text, value[i])
	}
	return append(texts, string(text)), names
}

// values resolves the placeholders of one value, which may make several of it,
// or none.
func (d *detection) values(n *yaml.Node, mods modifiers) ([]*yaml.Node, error) {
	switch {
	case n.Kind == yaml.MappingNode && len(n.Content) == 2 && n.Content[1].Tag == "!!null" && !mods.expand && d.doc.forAuth0():
		// {name} without quotes is a YAML map.
		n = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "{" + n.Content[0].Value + "}", Line: n.Line}
	case n.Kind != yaml.ScalarNode:
		return nil, fmt.Errorf("line %d: a value must be a scalar", n.Line)
	case n.Tag != "!!str":
		return []*yaml.Node{n}, nil
	}
	pieces, names := d.pieces(n, mods)
	texts := []string{pieces[0]}
	for i, name := range names {
		replacements, ok := d.vars[name]
		if !ok {
			d.missing = append(d.missing, name)
			continue
		}
		if len(texts)*len(replacements) > maxExpanded {
			return nil, fmt.Errorf("line %d: %q expands to more than %d values", n.Line, n.Value, maxExpanded)
		}
		var longer []string
		for _, text := range texts {
			for _, r := range replacements {
				longer = append(longer, text+escape(r, mods)+pieces[i+1])
			}
		}
		texts = longer
	}
	list := make([]*yaml.Node, len(texts))
	for i, text := range texts {
		list[i] = &yaml.Node{Kind: yaml.ScalarNode, Tag: n.Tag, Line: n.Line, Value: text}
	}
	return list, nil
}

// escape makes a variable's value stand for itself where it is put in.
func escape(s string, mods modifiers) string {
	if mods.op == "re" {
		return regexp.QuoteMeta(s)
	}
	if mods.op == "cidr" {
		return s
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(s)
}

// checkEncoded compiles one value, which the encodings may make several of.
func (d *detection) checkEncoded(n *yaml.Node, mods modifiers) (check, error) {
	if len(mods.encodings) == 0 {
		return d.check(n, mods)
	}
	forms, err := encoded(n, mods.encodings)
	if err != nil {
		return nil, err
	}
	var list anyOf
	for _, form := range forms {
		c, err := d.check(form, mods)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// check compiles one value.
func (d *detection) check(n *yaml.Node, mods modifiers) (check, error) {
	numeric := n.Tag == "!!int" || n.Tag == "!!float"
	switch {
	case mods.ref:
		if n.Value == "" || n.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: fieldref wants the name of a field", n.Line)
		}
		return fieldRef{other: d.fields.field(n.Value), shape: mods.shape, cased: mods.cased}, nil
	case mods.part != "" || mods.op == "lt" || mods.op == "lte" || mods.op == "gt" || mods.op == "gte":
		f, ok := (&value{kind: kindString, text: []byte(n.Value)}).number()
		if !ok {
			return nil, fmt.Errorf("line %d: %q is not a number", n.Line, n.Value)
		}
		if mods.part != "" {
			return timePart{mods.part, ordering{mods.op, n.Value, f}}, nil
		}
		return ordering{mods.op, n.Value, f}, nil
	case mods.op == "cidr":
		p, err := netip.ParsePrefix(n.Value)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n.Line, err)
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96) // as addresses are compared
		}
		return network(p.Masked()), nil
	case mods.op == "re":
		return d.regex(n, mods)
	case numeric && mods.op == "":
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil {
			break // 0x10 and 1_000 are numbers to YAML alone; compare them as written
		}
		return number{text: n.Value, f: f}, nil
	}
	text := parsePattern(n.Value)
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
