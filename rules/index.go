package rules

import (
	"cmp"
	"maps"
	"math/bits"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// index finds, of some detections, those that an event may match: each has some texts of
// which one must be there, in a certain field. So the cost of an event does not grow with
// the number of rules that it cannot match. An index does not change once it is built.
type index struct {
	list   []candidate   // by rule
	always []uint64      // those of list that need nothing, a bit for each
	slots  []*fieldIndex // by slot; nil where no rule needs anything there
	any    *fieldIndex   // of keywords
	texts  int           // of all automatons
}

// general is what a Matcher runs over the events of every type: the detections that say
// nothing of the type.
type general struct {
	list   []candidate
	index  *index  // of list, where it is long
	fields []Field // that they read
	shared int     // results that they keep, see once
}

// fieldIndex has what detections need in one field, as indexes into index.list.
type fieldIndex struct {
	present []int32            // it is there
	exact   map[string][]int32 // one of its values is a text
	parts   *automaton         // one of its values has a text somewhere in it
	found   [][]int32          // by the automaton's texts
	first   int                // where those are among the texts of all automatons
}

// need is something that must be there for a detection to match.
type need struct {
	field Field
	kind  needKind
	text  string // in lower case
}

type needKind uint8

const (
	needPresent needKind = iota
	needExact
	needPart
)

// newGeneral finds the detections of a set that say nothing of the type, and what they and
// those that count them read.
func newGeneral(s *Set, wants [][]Field) *general {
	g := &general{}
	r := reducer{m: &Matcher{}, uses: map[*test]int{}}
	add := func(f Field) { g.fields = append(g.fields, f) }
	for i, rule := range s.rules {
		if rule.Correlation != nil || rule.readsType {
			continue
		}
		x, holds := r.reduce(rule.match)
		if x == nil && !holds {
			continue
		}
		if x != nil {
			reads(x, add)
		}
		each(wants[i], add)
		g.list = append(g.list, candidate{i, x})
	}
	if len(g.list) >= leastIndexed {
		g.index = newIndex(g.list, s.slots)
	}
	r.arrangeAll(g.list)
	g.shared = len(r.shared)
	return g
}

// newIndex builds the index of some detections, which are not arranged yet.
func newIndex(list []candidate, slots int) *index {
	ix := &index{list: list, slots: make([]*fieldIndex, slots), always: make([]uint64, (len(list)+63)/64)}
	offers := make([][][]need, len(list))
	common := map[need]int{}
	for i, c := range list {
		if c.match == nil {
			continue
		}
		offers[i] = offersOf(c.match)
		for _, offer := range offers[i] {
			for _, n := range offer {
				common[n]++
			}
		}
	}

	parts := map[Field]map[string][]int32{}
	for i := range list {
		offer := best(offers[i], common)
		if offer == nil {
			ix.always[i/64] |= 1 << (i % 64)
		}
		for _, n := range offer {
			ix.note(n, int32(i), parts)
		}
	}
	for f, texts := range parts {
		at, sorted := ix.at(f), slices.Sorted(maps.Keys(texts))
		at.parts, at.first = newAutomaton(sorted), ix.texts
		ix.texts += len(sorted)
		for _, text := range sorted {
			at.found = append(at.found, texts[text])
		}
	}
	return ix
}

// at is what the index has of a field.
func (ix *index) at(f Field) *fieldIndex {
	place := &ix.any
	if f.slot != everywhere {
		place = &ix.slots[f.slot]
	}
	if *place == nil {
		*place = &fieldIndex{}
	}
	return *place
}

// note enters what a detection needs.
func (ix *index) note(n need, i int32, parts map[Field]map[string][]int32) {
	at := ix.at(n.field)
	switch n.kind {
	case needPresent:
		at.present = append(at.present, i)
	case needExact:
		if at.exact == nil {
			at.exact = map[string][]int32{}
		}
		at.exact[n.text] = append(at.exact[n.text], i)
	case needPart:
		if parts[n.field] == nil {
			parts[n.field] = map[string][]int32{}
		}
		parts[n.field][n.text] = append(parts[n.field][n.text], i)
	}
}

// finder runs an index. It belongs to one Matcher.
type finder struct {
	*index
	due   []uint64 // those that the event may match, a bit for each
	found []uint64 // the event in which each text was last found
}

func newFinder(ix *index) *finder {
	return &finder{index: ix, due: make([]uint64, len(ix.always)), found: make([]uint64, ix.texts)}
}

// find appends the detections that the event at hand may match.
func (f *finder) find(m *Matcher, list []candidate) []candidate {
	copy(f.due, f.always)
	for _, slot := range m.touched {
		if at := f.slots[slot]; at != nil {
			f.mark(m, at, m.slots[slot].values)
		}
	}
	if f.any != nil {
		f.mark(m, f.any, m.valuesAt(Field{slot: everywhere}))
	}
	for i, word := range f.due {
		for ; word != 0; word &= word - 1 {
			list = append(list, f.list[64*i+bits.TrailingZeros64(word)])
		}
	}
	return list
}

// mark notes the detections that may match an event with these values at a field.
func (f *finder) mark(m *Matcher, at *fieldIndex, values []value) {
	note := func(list []int32) {
		for _, i := range list {
			f.due[i/64] |= 1 << (i % 64)
		}
	}
	if len(values) > 0 {
		note(at.present)
	}
	if at.exact == nil && at.parts == nil {
		return
	}

	for i := range values {
		if values[i].kind <= kindContainer {
			continue
		}
		low := m.low(&values[i])
		if at.exact != nil {
			note(at.exact[string(low)])
		}
		if at.parts == nil {
			continue
		}
		at.parts.find(low, func(found int32) bool {
			if known := &f.found[at.first+int(found)]; *known != m.event {
				*known = m.event
				note(at.found[found])
			}
			return false
		})
	}
}

// readsType reports whether an expression looks at the event's type.
func readsType(x expr) (does bool) {
	reads(x, func(f Field) { does = does || f.slot == 0 })
	return does
}

// Weights of needs: what is long is rare, and what many rules name is not.
const (
	longestWeight = 16
	commonWeight  = 3 // for each doubling of the rules
)

// best is the offer whose commonest need is the rarest; nil where there is none.
func best(offers [][]need, common map[need]int) (chosen []need) {
	least := 0
	for _, offer := range offers {
		worst := longestWeight
		for _, n := range offer {
			weight := 0
			if n.kind != needPresent {
				weight = min(len(n.text), longestWeight)
			}
			worst = min(worst, weight-commonWeight*bits.Len(uint(max(common[n]-1, 0))))
		}
		if chosen == nil || worst > least || worst == least && len(offer) < len(chosen) {
			chosen, least = offer, worst
		}
	}
	return chosen
}

// offersOf are lists of needs, of each of which one is met wherever an expression holds;
// none where that cannot be said.
func offersOf(x expr) (offers [][]need) {
	switch x := x.(type) {
	case and:
		for _, part := range x {
			offers = append(offers, offersOf(part)...)
		}
	case or:
		// One of each part's: its best, by length.
		var joined []need
		for _, part := range x {
			offer := best(offersOf(part), map[need]int{})
			if offer == nil {
				return nil
			}
			joined = append(joined, offer...)
		}
		if joined != nil {
			slices.SortFunc(joined, compareNeeds)
			offers = [][]need{slices.Compact(joined)}
		}
	case exists:
		if x.want {
			offers = [][]need{{{field: x.field}}}
		}
	case *test:
		offers = x.offers()
	}
	return offers
}

func compareNeeds(a, b need) int {
	return cmp.Or(cmp.Compare(a.field.slot, b.field.slot), cmp.Compare(a.kind, b.kind), strings.Compare(a.text, b.text))
}

// offers are those of a test: of all its checks each offers something, of any the one that
// holds does.
func (t *test) offers() (offers [][]need) {
	if t.negate || t.absent || len(t.checks) == 0 {
		return nil
	}
	present := []need{{field: t.field}}
	if t.isKeyword() {
		present = nil // of an event, nearly always
	}
	var joined []need
	for _, c := range t.checks {
		texts := neededBy(c)
		var own []need
		for _, n := range texts {
			n.field = t.field
			own = append(own, n)
		}
		if t.all {
			if own != nil {
				offers = append(offers, own)
			}
			continue
		}
		if own == nil {
			joined = nil
			break
		}
		joined = append(joined, own...)
	}
	if joined != nil {
		slices.SortFunc(joined, compareNeeds)
		offers = append(offers, slices.Compact(joined))
	}
	if present != nil {
		offers = append(offers, present)
	}
	return offers
}

// neededBy are texts of which a value that a check holds for has one; nil where there are
// none.
func neededBy(c check) (list []need) {
	switch c := c.(type) {
	case oneOf:
		for text := range c {
			list = append(list, need{kind: needExact, text: text})
		}
	case anyOf:
		for _, form := range c {
			texts := neededBy(form)
			if texts == nil {
				return nil
			}
			list = append(list, texts...)
		}
	case pattern:
		longest := c.text
		for _, part := range c.parts {
			for piece := range strings.SplitSeq(part, string(wildOne)) {
				if len(piece) > len(longest) {
					longest = piece
				}
			}
		}
		n := need{kind: needPart, text: string(lower(nil, []byte(longest)))}
		if c.shape == exact {
			n.kind = needExact
		} else if n.text == "" {
			return nil
		}
		list = []need{n}
	case regex:
		if text := literalIn(c.String()); text != "" {
			list = []need{{kind: needPart, text: text}}
		}
	}
	return list
}

// literalIn is the longest text, in lower case, that is in whatever an expression matches.
func literalIn(source string) string {
	re, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return ""
	}
	return longestLiteral(re.Simplify())
}

func longestLiteral(re *syntax.Regexp) (longest string) {
	switch re.Op {
	case syntax.OpLiteral:
		for piece := range strings.FieldsFuncSeq(string(re.Rune), func(r rune) bool {
			// Without regard to case, k and s are also other letters.
			return r == utf8.RuneError || re.Flags&syntax.FoldCase != 0 && (r > 127 || strings.ContainsRune("kKsS", r))
		}) {
			if len(piece) > len(longest) {
				longest = piece
			}
		}
		return string(lower(nil, []byte(longest)))
	case syntax.OpCapture, syntax.OpPlus:
		return longestLiteral(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return longestLiteral(re.Sub[0])
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if text := longestLiteral(sub); len(text) > len(longest) {
				longest = text
			}
		}
	}
	return longest
}
