package expr

// The bounds of regular expressions.
const (
	MaxInstructions = maxInstructions
	MaxSteps        = maxSteps
)

// Size is the number of instructions.
func (c Regex) Size() int { return c.size }

// SearchesMany reports whether an automaton searches for the texts.
func (t *Test) SearchesMany() bool { return t.many != nil }

// ReadAll reads everything that any condition needs of an event, whatever its type.
func (m *Matcher) ReadAll(raw []byte) {
	m.reset()
	m.event++
	m.whole = true
	m.scan(raw)
}

// AsWritten are the conditions that hold for the event which was read, each evaluated without
// reduction and index.
func (m *Matcher) AsWritten() (list []int) {
	for i, one := range m.program.list {
		if one.match != nil && one.match.eval(m) {
			list = append(list, i)
		}
	}
	return list
}

// Extra are the fields that are read for a condition besides those that it tests.
func (m *Matcher) Extra(index int) []Field { return m.program.list[index].extra }

// Queued is the number of conditions that the last index has selected.
func (m *Matcher) Queued() int { return len(m.queue) }

// Lookup is what the indexes say of an event.
type Lookup struct{ Indexes, Tried, Of int }

// Indexed asks the indexes about the last event.
func (m *Matcher) Indexed() (l Lookup) {
	if f := m.reduced.finder; f != nil {
		l = Lookup{1, len(f.find(m, nil)), len(m.reduced.list)}
	}
	if m.finder != nil {
		l.Indexes++
		l.Tried += len(m.finder.find(m, nil))
		l.Of += len(m.general.list)
	}
	return l
}

// Decoded is an event whose values have been read.
type Decoded struct {
	raw     []byte
	reduced *reduced
	touched []int
	values  [][]value // of the slots that it touched
}

// Decode reads an event.
func (m *Matcher) Decode(raw []byte) Decoded {
	m.reset()
	m.scratch = nil // what was cut of it stays
	m.scan(raw)
	e := Decoded{raw: raw, reduced: m.reduced}
	for _, i := range m.touched {
		e.touched = append(e.touched, i)
		e.values = append(e.values, append([]value(nil), m.slots[i].values...))
	}
	return e
}

// EvaluateDecoded is Match of an event that has been read.
func (m *Matcher) EvaluateDecoded(e *Decoded) []int {
	m.reset()
	m.event++
	m.scratch = m.scratch[:0]
	m.raw, m.reduced = e.raw, e.reduced
	for k, slot := range e.touched {
		m.touched = append(m.touched, slot)
		m.slots[slot].values = append(m.slots[slot].values, e.values[k]...)
	}
	return m.evaluate()
}
