package rules

import (
	"maps"
	"slices"
	"strings"
)

// A Field is a place in an event that a Set reads. It belongs to the Set whose
// rule holds it.
type Field struct {
	Path string // normal form: dotted, without the "data." envelope and "{}"
	slot int
}

// typeField is the path by which rules are indexed.
const typeField = "type"

// node is one step of the trie of all field paths that any rule of a Set uses.
type node struct {
	slot     int // where the value at this path goes; -1 for nowhere
	children map[string]*node
	table    []step // the children again, see seal
}

// step is a child with its name.
type step struct {
	name string
	node *node
}

// add makes the way to a field.
func (n *node) add(f Field) {
	for step := range strings.SplitSeq(f.Path, ".") {
		child := n.children[step]
		if child == nil {
			child = &node{slot: -1}
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[step] = child
		}
		n = child
	}
	n.slot = f.slot
}

// seal makes child work below n. Every key of an event is looked for, most of them
// in vain, and a table that goes by a key's length and two of its bytes says so
// sooner than a map.
func (n *node) seal() {
	size := 4
	for size < 2*len(n.children) {
		size *= 2
	}
	n.table = nil
	if len(n.children) > 0 {
		n.table = make([]step, size)
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		i := place(name) & uint(size-1)
		for n.table[i].node != nil {
			i = (i + 1) & uint(size-1)
		}
		n.table[i] = step{name, n.children[name]}
		n.children[name].seal()
	}
}

func place[T string | []byte](name T) uint {
	if len(name) == 0 {
		return 0
	}
	return uint(len(name)) + 7*uint(name[0]) + 31*uint(name[len(name)-1])
}

// child is the step below n that a key stands for; nil for none.
func (n *node) child(key []byte) *node {
	last := uint(len(n.table) - 1)
	if len(n.table) == 0 {
		return nil
	}
	for i := place(key) & last; n.table[i].node != nil; i = (i + 1) & last {
		if n.table[i].name == string(key) {
			return n.table[i].node
		}
	}
	return nil
}

// fields hands out a slot per path while rules are compiled.
type fields struct {
	root  *node
	slots map[string]int
	tests map[string]*test // by what the rules say, see shared
}

func newFields() *fields {
	f := &fields{root: &node{slot: -1}, slots: map[string]int{}, tests: map[string]*test{}}
	f.field(typeField) // slot 0
	return f
}

// field returns the field of a path as a rule writes it.
func (f *fields) field(path string) Field {
	path = normalPath(path)
	slot, ok := f.slots[path]
	if ok {
		return Field{Path: path, slot: slot}
	}
	slot = len(f.slots)
	f.slots[path] = slot
	field := Field{Path: path, slot: slot}
	f.root.add(field)
	return field
}

// normalPath strips what only tells a tool how the event was wrapped or that a
// field is an array: the "data." of a log stream's envelope and Splunk's "{}".
func normalPath(path string) string {
	path = strings.ReplaceAll(path, "{}", "")
	if rest, ok := strings.CutPrefix(path, "data."); ok && rest != "" {
		return rest
	}
	return path
}

// shared returns the first test that says the same as t, so that a Matcher can tell
// that they are one.
func (f *fields) shared(key string, t *test) *test {
	if known := f.tests[key]; known != nil {
		return known
	}
	f.tests[key] = t
	return t
}
