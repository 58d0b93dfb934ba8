package rules

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Explanation is one node of a detection's condition with what it makes of an
// event: and, or and not have Parts, a field and a keyword are tests.
type Explanation struct {
	Op        string         `json:"op"` // and, or, not, field, keyword
	Holds     bool           `json:"holds"`
	Search    string         `json:"search,omitempty"`    // the search identifier that this node is, such as selection
	Filter    string         `json:"filter,omitempty"`    // title of the filter that has added this node
	Field     string         `json:"field,omitempty"`     // without the envelope of a log stream and {}
	Modifiers []string       `json:"modifiers,omitempty"` // as the rule has them
	Expected  []Value        `json:"expected,omitempty"`  // as the rule has them, with its variables put in
	Found     string         `json:"found,omitempty"`     // of a field: see FoundValues and what follows it
	Actual    []Value        `json:"actual,omitempty"`    // what the event has there, all members of an array; of a keyword, the first text that has it
	Other     []Value        `json:"other,omitempty"`     // fieldref: what the event has at the expected fields
	Note      string         `json:"note,omitempty"`
	File      string         `json:"file,omitempty"`
	Line      int            `json:"line,omitempty"`
	Parts     []*Explanation `json:"parts,omitempty"`
}

// The nodes of an Explanation.
const (
	OpAnd     = "and"
	OpOr      = "or"
	OpNot     = "not"
	OpField   = "field"
	OpKeyword = "keyword"
)

// What an event has at a field.
const (
	FoundValues    = "values"    // scalars, null being one
	FoundContainer = "container" // an object or an empty array, which no value is equal to
	FoundAbsent    = "absent"
)

// Value is a scalar of a rule or of an event.
type Value struct {
	Text   string
	Quoted bool // a string; otherwise a number, a boolean or null as it is spelled
}

// String writes a string in quotes.
func (v Value) String() string {
	if v.Quoted {
		return strconv.Quote(v.Text)
	}
	return v.Text
}

// MarshalJSON writes the scalar; one that is not JSON, as a string.
func (v Value) MarshalJSON() ([]byte, error) {
	if !v.Quoted && json.Valid([]byte(v.Text)) {
		return []byte(v.Text), nil
	}
	return json.Marshal(v.Text)
}

// UnmarshalJSON reads a scalar.
func (v *Value) UnmarshalJSON(data []byte) error {
	if v.Quoted = len(data) > 0 && data[0] == '"'; v.Quoted {
		return json.Unmarshal(data, &v.Text)
	}
	v.Text = string(data)
	return nil
}

// outline is a compiled condition as its rule spells it. A Matcher does not look at
// it: what it takes is the expr beside it, whose tests are the leaves of both.
type outline struct {
	op     string // and, or, not; empty for a leaf
	parts  []*outline
	leaf   expr
	search string
	filter string
	key    string // as written: a field with its modifiers; of keywords only these
	want   []Value
	file   string
	line   int
}

// outlined parses the conditions that have been compiled once more, into their
// outline.
func (d *detection) outlined(conditions []*yaml.Node) (*outline, error) {
	join := func(op string) func([]*outline) *outline {
		return func(parts []*outline) *outline { return &outline{op: op, parts: parts} }
	}
	known := map[string]*outline{}
	var list []*outline
	for _, c := range conditions {
		p := condition[*outline]{names: d.names, allOf: join(OpAnd), anyOf: join(OpOr),
			negate: func(x *outline) *outline { return &outline{op: OpNot, parts: []*outline{x}} },
			lookup: func(name string) (*outline, error) {
				if o := known[name]; o != nil {
					return o, nil
				}
				o, err := d.outlineOf(d.searches[name], d.compiled[name])
				if err != nil {
					return nil, err
				}
				o.search, known[name] = name, o
				return o, nil
			}}
		o, err := p.parse(c.Value)
		if err != nil {
			return nil, d.doc.errorf(c, "%w", err)
		}
		list = append(list, o)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return &outline{op: OpOr, parts: list}, nil
}

// outlineOf spells out what item has compiled.
func (d *detection) outlineOf(n *yaml.Node, x expr) (*outline, error) {
	switch n.Kind {
	case yaml.MappingNode:
		entries, err := mapping(n)
		if err != nil {
			return nil, err
		}
		if len(entries) == 1 {
			return d.outlineField(entries[0], x)
		}
		o := &outline{op: OpAnd, file: d.doc.file, line: n.Line}
		for i, e := range entries {
			part, err := d.outlineField(e, x.(and)[i])
			if err != nil {
				return nil, err
			}
			o.parts = append(o.parts, part)
		}
		return o, nil
	case yaml.SequenceNode:
		o := &outline{op: OpOr, file: d.doc.file, line: n.Line}
		for i, c := range n.Content {
			part, err := d.outlineOf(c, x.(or)[i])
			if err != nil {
				return nil, err
			}
			o.parts = append(o.parts, part)
		}
		if len(o.parts) == 1 {
			return o.parts[0], nil
		}
		return o, nil
	}
	return d.outlineLeaf("", n.Line, n, x), nil
}

// outlineField spells out one field of a search identifier, or its keywords.
func (d *detection) outlineField(e entry, x expr) (*outline, error) {
	nodes := []*yaml.Node{e.value}
	if e.value.Kind == yaml.SequenceNode {
		nodes = e.value.Content
	}
	_, rest, _ := strings.Cut(e.key, "|")
	var names []string
	if rest != "" {
		names = strings.Split(rest, "|")
	}
	mods, err := parseModifiers(names)
	if err != nil {
		return nil, err
	}
	o := d.outlineLeaf(e.key, e.line, nil, x)
	for _, n := range nodes {
		scalars, err := d.values(n, mods)
		if err != nil {
			return nil, err
		}
		for _, n := range scalars {
			o.want = append(o.want, written(n))
		}
	}
	return o, nil
}

func (d *detection) outlineLeaf(key string, line int, n *yaml.Node, x expr) *outline {
	o := &outline{leaf: x, key: key, file: d.doc.file, line: line}
	if n != nil {
		o.want = []Value{written(n)}
	}
	return o
}

// written is a scalar as a rule has it.
func written(n *yaml.Node) Value {
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

// Explain says what each part of a detection makes of an event. Its verdict is
// Match's. The rule is one of the Matcher's Set; of a correlation there is nothing
// to explain, since it matches no event by itself. Value is about this event
// afterwards.
func (m *Matcher) Explain(raw []byte, r *Rule) *Explanation {
	if r.outline == nil {
		return nil
	}
	m.Match(raw)
	// Match has read what its type asks for; the type that it saw is the one that
	// counts.
	typ := slices.Clone(m.slots[0].values)
	m.reset()
	m.whole = true
	m.scan(raw)
	m.whole = false
	m.slots[0].values = append(m.slots[0].values[:0], typ...)
	m.steps, m.backtracked = 0, 0
	return m.explain(r.outline)
}

func (m *Matcher) explain(o *outline) *Explanation {
	e := &Explanation{Op: o.op, Search: o.search, Filter: o.filter, File: o.file, Line: o.line}
	if o.op == "" {
		m.explainLeaf(e, o)
		return e
	}
	for _, part := range o.parts {
		e.Parts = append(e.Parts, m.explain(part))
	}
	holds := func(p *Explanation) bool { return p.Holds }
	fails := func(p *Explanation) bool { return !p.Holds }
	switch o.op {
	case OpAnd:
		e.Holds = !slices.ContainsFunc(e.Parts, fails)
	case OpOr:
		e.Holds = slices.ContainsFunc(e.Parts, holds)
	case OpNot:
		e.Holds = fails(e.Parts[0])
	}
	return e
}

func (m *Matcher) explainLeaf(e *Explanation, o *outline) {
	before := m.timeouts
	e.Holds = o.leaf.eval(m)
	if m.timeouts > before {
		e.Note = "the regular expression took too long, which counts as no match"
	}
	e.Expected = o.want
	path, mods, _ := strings.Cut(o.key, "|")
	if mods != "" {
		e.Modifiers = strings.Split(mods, "|")
	}
	if t, ok := o.leaf.(*test); ok && t.isKeyword() {
		e.Op = OpKeyword
		for _, v := range m.valuesAt(t.field) {
			if e.Holds != t.negate && slices.ContainsFunc(t.checks, func(c check) bool { return c.member(m, &v) }) {
				e.Actual = []Value{v.told()}
				break
			}
		}
		return
	}

	e.Op = OpField
	e.Field = normalPath(path)
	var field Field
	switch x := o.leaf.(type) {
	case *test:
		field = x.field
		for _, c := range x.checks {
			if ref, ok := c.(fieldRef); ok {
				other, _ := m.slots[ref.other.slot].told()
				e.Other = append(e.Other, other...)
			}
		}
	case exists:
		field = x.field
	}
	e.Actual, e.Found = m.slots[field.slot].told()
}

// told is what the event has at a field, to be kept.
func (s *slot) told() (list []Value, found string) {
	found = FoundAbsent
	for i := range s.values {
		v := &s.values[i]
		if v.kind == kindContainer {
			found = FoundContainer
			continue
		}
		list = append(list, v.told())
	}
	if len(list) > 0 {
		found = FoundValues
	}
	return list, found
}

func (v *value) told() Value {
	if v.kind == kindNull {
		return Value{Text: "null"}
	}
	return Value{Text: string(v.text), Quoted: v.kind == kindString}
}

// Decisive are the tests because of which the condition holds or does not: those
// that would have to come out otherwise.
func (e *Explanation) Decisive() []*Explanation {
	if len(e.Parts) == 0 {
		return []*Explanation{e}
	}
	var list []*Explanation
	for _, p := range e.Parts {
		if e.Op == OpNot || p.Holds == e.Holds {
			list = append(list, p.Decisive()...)
		}
	}
	return list
}

// mostReasons is how many tests Why names.
const mostReasons = 3

// Why says in a few words which tests decide; it is empty where the condition
// holds.
func (e *Explanation) Why() string {
	if e.Holds {
		return ""
	}
	var list []string
	decisive := e.Decisive()
	for i, leaf := range decisive {
		if i == mostReasons {
			list = append(list, fmt.Sprintf("and %d more", len(decisive)-i))
			break
		}
		list = append(list, leaf.sentence())
	}
	return strings.Join(list, "; ")
}

// sentence says how a test came out. One that holds is named where it should not.
func (e *Explanation) sentence() string {
	place := ""
	if e.Line > 0 {
		place = fmt.Sprintf(" (%s:%d)", e.File, e.Line)
	}
	if e.Op == OpKeyword {
		if e.Holds {
			return fmt.Sprintf("%s is in the event%s", e.Want(), place)
		}
		return fmt.Sprintf("%s is nowhere in the event%s", e.Want(), place)
	}
	verb := "wanted"
	if e.Holds {
		verb = "excluded"
	}
	return fmt.Sprintf("%s is %s, %s is %s%s", e.Field, e.Got(), verb, e.Want(), place)
}

// Bounds of what is shown of long lists and texts.
const (
	mostShown  = 6
	widestText = 80 // runes
)

// Want is what the test asks for, in short.
func (e *Explanation) Want() string {
	mods := strings.Join(e.Modifiers, " ")
	if mods != "" {
		mods += " "
	}
	return mods + Short(e.Expected)
}

// Got is what the event has at the field, in short.
func (e *Explanation) Got() string {
	switch e.Found {
	case FoundAbsent:
		return "absent"
	case FoundContainer:
		return "an object or an empty array"
	}
	got := Short(e.Actual)
	if e.Other != nil {
		got += ", the other " + Short(e.Other)
	}
	return got
}

// Short writes values, of many the first and of long ones the beginning.
func Short(list []Value) string {
	var b strings.Builder
	for i, v := range list {
		if i == mostShown {
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if text := []rune(v.Text); len(text) > widestText {
			v.Text = string(text[:widestText-1]) + "…"
		}
		b.WriteString(v.String())
	}
	return b.String()
}

// Words spells out a condition in words, with a name for each of the sources.
func (n *Need) Words(names []string) string {
	switch n.op {
	case "":
		return names[n.source]
	case "not":
		return "not " + n.parts[0].inner(names)
	}
	var list []string
	for _, p := range n.parts {
		list = append(list, p.inner(names))
	}
	return strings.Join(list, " "+n.op+" ")
}

func (n *Need) inner(names []string) string {
	if n.op == "and" || n.op == "or" {
		return "(" + n.Words(names) + ")"
	}
	return n.Words(names)
}
