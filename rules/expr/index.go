package expr

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"
)

// index selects, of some conditions, those that may hold for an event. For each condition it has
// some texts of which at least one must be present, in a certain field. So the cost of an event
// does not grow with the number of conditions that it cannot satisfy. An index is immutable.
type index struct {
	list   []candidate
	always []uint64      // conditions that need nothing: a bit for each index in list
	slots  []*fieldIndex // by slot; nil if no condition needs anything there
	any    *fieldIndex   // of keywords
	texts  int           // number of texts in all automatons
}

// general is what a Matcher runs over the events of every type: the conditions that do not test
// the type.
type general struct {
	list   []candidate
	index  *index  // of list; nil if that is short
	fields []Field // that they read
	shared int     // number of results that they keep; see once
}

// fieldIndex lists the conditions that need something in one field, as indexes into index.list.
type fieldIndex struct {
	present []int32            // need the field to be present
	exact   map[string][]int32 // need a value that equals the text
	parts   *automaton         // need a value that contains a text
	found   [][]int32          // the latter, by the automaton's texts
	first   int                // index of the first of these texts among those of all automatons
}

// need is something that must be present for a condition to hold.
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

// newGeneral collects the conditions that do not test the type, and the fields to read for them.
func newGeneral(p *Program) *general {
	all := &general{}
	reduction := reducer{m: &Matcher{}, uses: map[*Test]int{}}
	add := func(f Field) { all.fields = append(all.fields, f) }

	// reduce drops parts that are constant, even without a type.
	for i, one := range p.list {
		if one.match == nil || one.typed {
			continue
		}
		rest, holds := reduction.reduce(one.match)
		if rest == nil && !holds {
			continue // it can never hold
		}
		if rest != nil {
			reads(rest, add)
		}

		each(one.extra, add)
		all.list = append(all.list, candidate{i, rest})
	}

	// The index needs the expressions before they are arranged.
	if len(all.list) >= minIndexed {
		all.index = newIndex(all.list, p.slots)
	}

	reduction.arrangeAll(all.list)
	all.shared = len(reduction.shared)
	return all
}

// newIndex builds the index of some conditions, whose expressions are not arranged yet.
func newIndex(list []candidate, slots int) *index {
	ix := &index{list: list, slots: make([]*fieldIndex, slots), always: make([]uint64, (len(list)+63)/64)}

	// Count how many offers share each need: a common one selects badly.
	offers := make([][][]need, len(list))
	common := map[need]int{}
	for i, candidate := range list {
		if candidate.match == nil {
			continue
		}
		offers[i] = offersOf(candidate.match)
		for _, offer := range offers[i] {
			for _, need := range offer {
				common[need]++
			}
		}
	}

	// Texts that a value must contain, with their conditions, by field.
	parts := map[Field]map[string][]int32{}

	// Choose the best offer of each condition; without an offer it is always evaluated.
	for i := range list {
		offer := best(offers[i], common)
		if offer == nil {
			ix.always[i/64] |= 1 << (i % 64)
		}
		for _, need := range offer {
			ix.insert(need, int32(i), parts)
		}
	}

	// Build one automaton for each field.
	for field, texts := range parts {
		at, sorted := ix.at(field), slices.Sorted(maps.Keys(texts))
		at.parts, at.first = newAutomaton(sorted), ix.texts
		ix.texts += len(sorted)
		for _, text := range sorted {
			at.found = append(at.found, texts[text])
		}
	}

	return ix
}

// at returns the index of a field, and creates it if necessary.
func (ix *index) at(f Field) *fieldIndex {
	entry := &ix.any

	// Keywords have no slot.
	if f.slot != everywhere {
		entry = &ix.slots[f.slot]
	}
	if *entry == nil {
		*entry = &fieldIndex{}
	}
	return *entry
}

// insert adds a need of the i-th condition. Parts of texts are collected in parts.
func (ix *index) insert(n need, i int32, parts map[Field]map[string][]int32) {
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
	due   []uint64 // conditions that may hold for the event: a bit for each index in list
	found []uint64 // for each text, the event in which it was last found
}

func newFinder(ix *index) *finder {
	return &finder{index: ix, due: make([]uint64, len(ix.always)), found: make([]uint64, ix.texts)}
}

// find appends the conditions that may hold for the current event.
func (f *finder) find(m *Matcher, list []candidate) []candidate {
	// Start with the conditions that need nothing, and add those whose needs are met.
	copy(f.due, f.always)
	for _, slot := range m.touched {
		if at := f.slots[slot]; at != nil {
			f.mark(m, at, m.slots[slot].values)
		}
	}

	if f.any != nil {
		f.mark(m, f.any, m.valuesAt(Field{slot: everywhere}))
	}

	// Visit the set bits in ascending order, which is the order of the conditions.
	for i, word := range f.due {
		for ; word != 0; word &= word - 1 {
			list = append(list, f.list[64*i+bits.TrailingZeros64(word)])
		}
	}
	return list
}

// mark sets due for the conditions that may hold for an event with these values in a field.
func (f *finder) mark(m *Matcher, at *fieldIndex, values []value) {
	set := func(list []int32) {
		for _, i := range list {
			f.due[i/64] |= 1 << (i % 64)
		}
	}
	if len(values) > 0 {
		set(at.present)
	}
	if at.exact == nil && at.parts == nil {
		return
	}

	// Compare in lower case, like the texts of the index.
	for i := range values {
		if values[i].kind <= kindContainer {
			continue
		}
		low := m.low(&values[i])
		if at.exact != nil {
			set(at.exact[string(low)])
		}
		if at.parts == nil {
			continue
		}

		// A text may be found many times: handle it once for each event.
		at.parts.find(low, func(found int32) bool {
			if known := &f.found[at.first+int(found)]; *known != m.event {
				*known = m.event
				set(at.found[found])
			}
			return false
		})
	}
}

// Weights of needs: a long text is rare, and one that many conditions need is not.
const (
	maxLengthWeight = 16
	commonWeight    = 3 // for each doubling of the number of conditions
)

// best returns the offer whose most common need is the rarest; nil if there is no offer.
func best(offers [][]need, common map[need]int) (chosen []need) {
	chosenWeight := 0
	for _, offer := range offers {
		// An offer is only as selective as its most common need.
		worst := maxLengthWeight
		for _, need := range offer {
			weight := 0
			if need.kind != needPresent {
				weight = min(len(need.text), maxLengthWeight)
			}
			worst = min(worst, weight-commonWeight*bits.Len(uint(max(common[need]-1, 0))))
		}

		// Of two equal offers, take the one with fewer needs.
		if chosen == nil || worst > chosenWeight || worst == chosenWeight && len(offer) < len(chosen) {
			chosen, chosenWeight = offer, worst
		}
	}
	return chosen
}

func compareNeeds(a, b need) int {
	return cmp.Or(cmp.Compare(a.field.slot, b.field.slot), cmp.Compare(a.kind, b.kind), cmp.Compare(a.text, b.text))
}
