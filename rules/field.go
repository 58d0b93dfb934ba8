package rules

import (
	"maps"
	"slices"
	"strings"
)

// A Field is a path in an event that a Set reads. It is valid only for the Set whose
// rule has it.
type Field struct {
	Path string // normal form: dotted, without the "data." envelope and "{}"
	slot int
}

// typeField is the path of the event's type, which always has slot 0.
const typeField = "type"

// node is one step of the trie of all field paths that the rules of a Set use.
type node struct {
	slot     int // where the value at this path is stored; -1 for nowhere
	children map[string]*node
	table    []step // the children as a hash table; see seal
}

// step is a child with its name.
type step struct {
	name string
	node *node
}

// add inserts the path of a field.
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

// seal builds the hash tables of n and the nodes below, which child needs. Every key of an
// event is looked up, and most are absent. Hashing the length and two bytes of a key finds
// that out faster than a map does.
func (n *node) seal() {
	// At most half full, so that probes are short.
	size := 4
	for size < 2*len(n.children) {
		size *= 2
	}

	n.table = nil
	if len(n.children) > 0 {
		n.table = make([]step, size)
	}

	// Insert in a fixed order, so that equal sets have equal tables.
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		i := hash(name) & uint(size-1)
		for n.table[i].node != nil {
			i = (i + 1) & uint(size-1)
		}
		n.table[i] = step{name, n.children[name]}
		n.children[name].seal()
	}
}

// hash returns the bucket of a key, before it is reduced to the size of a table.
func hash[T string | []byte](key T) uint {
	if len(key) == 0 {
		return 0
	}
	return uint(len(key)) + 7*uint(key[0]) + 31*uint(key[len(key)-1])
}

// child returns the node below n for a key, or nil.
func (n *node) child(key []byte) *node {
	last := uint(len(n.table) - 1)
	if len(n.table) == 0 {
		return nil
	}

	for i := hash(key) & last; n.table[i].node != nil; i = (i + 1) & last {
		if n.table[i].name == string(key) {
			return n.table[i].node
		}
	}
	return nil
}

// fields assigns a slot to each path while rules are compiled.
type fields struct {
	root  *node
	slots map[string]int
	tests map[string]*test // by a key that equal tests share; see shared
}

func newFields() *fields {
	f := &fields{root: &node{slot: -1}, slots: map[string]int{}, tests: map[string]*test{}}

	// The type must have slot 0.
	f.field(typeField)
	return f
}

// field returns the field of a path as a rule writes it.
func (f *fields) field(path string) Field {
	path = normalPath(path)
	slot, ok := f.slots[path]
	if ok {
		return Field{Path: path, slot: slot}
	}

	// A new path gets the next slot.
	slot = len(f.slots)
	f.slots[path] = slot
	field := Field{Path: path, slot: slot}
	f.root.add(field)
	return field
}

// normalPath strips the parts of a path that only describe how the event is wrapped, or that a
// field is an array: the "data." of a log stream's envelope and Splunk's "{}".
func normalPath(path string) string {
	path = strings.ReplaceAll(path, "{}", "")
	if rest, ok := strings.CutPrefix(path, "data."); ok && rest != "" {
		return rest
	}
	return path
}

// shared returns the first test with the same key as t, so that equal tests of several rules are
// one pointer and a Matcher can evaluate them once.
func (f *fields) shared(key string, t *test) *test {
	if known := f.tests[key]; known != nil {
		return known
	}
	f.tests[key] = t
	return t
}
