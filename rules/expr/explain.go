package expr

import (
	"encoding/json"
	"slices"
	"strconv"
)

// Explanation is one node of a condition with its result for an event. And, or and
// not have Parts; a field and a keyword are tests.
type Explanation struct {
	Op        Op             `json:"op"` // and, or, not, field, keyword
	Holds     bool           `json:"holds"`
	Search    string         `json:"search,omitempty"`    // the search identifier of this node, such as selection
	Filter    string         `json:"filter,omitempty"`    // title of the filter that added this node
	Field     string         `json:"field,omitempty"`     // without the envelope of a log stream and {}
	Modifiers []string       `json:"modifiers,omitempty"` // as in the rule
	Expected  []Value        `json:"expected,omitempty"`  // as in the rule, with its variables filled in
	Found     Found          `json:"found,omitempty"`     // of a field
	Actual    []Value        `json:"actual,omitempty"`    // values in the event; of a keyword, the first match
	Other     []Value        `json:"other,omitempty"`     // fieldref: values of the expected fields in the event
	Note      string         `json:"note,omitempty"`
	File      string         `json:"file,omitempty"`
	Line      int            `json:"line,omitempty"`
	Parts     []*Explanation `json:"parts,omitempty"`
}

// Op is the kind of a node of a condition.
type Op string

// The kinds of nodes. A Tree has only the first three.
const (
	OpAnd     Op = "and"
	OpOr      Op = "or"
	OpNot     Op = "not"
	OpField   Op = "field"
	OpKeyword Op = "keyword"
)

// Found is what an event has at a field.
type Found string

// What an event may have at a field.
const (
	FoundValues    Found = "values"    // scalars, including null
	FoundContainer Found = "container" // an object or an empty array, which equals no value
	FoundAbsent    Found = "absent"
)

// Value is a scalar of a rule or of an event.
type Value struct {
	Text   string
	Quoted bool // a string; otherwise a number, a boolean or null as written
}

// String returns the scalar, a string in quotes.
func (v Value) String() string {
	if v.Quoted {
		return strconv.Quote(v.Text)
	}
	return v.Text
}

// MarshalJSON writes the scalar; one that is not valid JSON is written as a string.
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

// Explain returns the result of each part of a condition for an event; nil for a nil condition. Its
// overall result equals Match's. The condition must be one of the Matcher's Program. Afterwards,
// AppendTexts and First refer to this event.
func (m *Matcher) Explain(raw []byte, condition *Tree) *Explanation {
	if condition == nil {
		return nil
	}

	// Match reads only the fields for the event's type: read all of them, but keep the type
	// that Match saw, which decides.
	m.Match(raw)
	typ := slices.Clone(m.slots[0].values)
	m.reset()
	m.whole = true
	m.scan(raw)
	m.whole = false
	m.slots[0].values = append(m.slots[0].values[:0], typ...)

	// The tests run a second time: give the regular expressions a fresh budget.
	m.steps, m.backtracked = 0, 0
	return m.explain(condition)
}

func (m *Matcher) explain(tree *Tree) *Explanation {
	explained := &Explanation{Op: tree.Op, Search: tree.Search, Filter: tree.Filter, File: tree.File, Line: tree.Line}
	if tree.Op == "" {
		m.explainTest(explained, tree)
		return explained
	}

	// Evaluate every part, also those that a Matcher would not reach.
	for _, part := range tree.Parts {
		explained.Parts = append(explained.Parts, m.explain(part))
	}

	holds := func(p *Explanation) bool { return p.Holds }
	fails := func(p *Explanation) bool { return !p.Holds }
	switch tree.Op {
	case OpAnd:
		explained.Holds = !slices.ContainsFunc(explained.Parts, fails)
	case OpOr:
		explained.Holds = slices.ContainsFunc(explained.Parts, holds)
	case OpNot:
		explained.Holds = fails(explained.Parts[0])
	}

	return explained
}

func (m *Matcher) explainTest(e *Explanation, tree *Tree) {
	// A timeout counts as no match, which would be a puzzling result without a note.
	before := m.timeouts
	e.Holds = tree.Leaf.eval(m)
	if m.timeouts > before {
		e.Note = "the regular expression took too long, which counts as no match"
	}

	// Describe the test as written in the rule.
	e.Expected, e.Modifiers = tree.Want, tree.Modifiers

	// A keyword has no field: show the text of the event that matches.
	if keyword, ok := tree.Leaf.(*Test); ok && keyword.isKeyword() {
		e.Op = OpKeyword
		if e.Holds != keyword.Negate {
			e.Actual = m.firstMember(keyword)
		}
		return
	}

	e.Op = OpField

	// Show the values that the event has at the field, and at the fields of fieldref.
	var field Field
	switch x := tree.Leaf.(type) {
	case *Test:
		field = x.Field
		for _, check := range x.Checks {
			if ref, ok := check.(FieldRef); ok {
				other, _ := m.slots[ref.Other.slot].copied()
				e.Other = append(e.Other, other...)
			}
		}
	case Exists:
		field = x.Field
	}

	e.Field = field.Path
	e.Actual, e.Found = m.slots[field.slot].copied()
}

// firstMember returns the first scalar of the event for which one of a keyword's checks holds.
func (m *Matcher) firstMember(t *Test) []Value {
	for _, value := range m.valuesAt(t.Field) {
		if slices.ContainsFunc(t.Checks, func(c Check) bool { return c.member(m, &value) }) {
			return []Value{value.copied()}
		}
	}
	return nil
}

// copied returns the values of the event at a field, as copies that outlive it.
func (s *slot) copied() (list []Value, found Found) {
	found = FoundAbsent
	for i := range s.values {
		value := &s.values[i]
		if value.kind == kindContainer {
			found = FoundContainer
			continue
		}

		// Values point into the event, which the caller may reuse.
		list = append(list, value.copied())
	}

	if len(list) > 0 {
		found = FoundValues
	}
	return list, found
}

func (v *value) copied() Value {
	if v.kind == kindNull {
		return Value{Text: "null"}
	}
	return Value{Text: string(v.text), Quoted: v.kind == kindString}
}
