package expr

import (
	"maps"
	"slices"
	"strings"
)

// A Field is a path in an event that a Program reads. It is valid only for the Programs of the
// Fields that it is from.
type Field struct {
	Path string // normal form: dotted, without the "data." envelope and "{}"
	slot int
}

// everywhere is the slot of Anywhere.
const everywhere = -1

// Anywhere returns the field of keywords, which stands for every scalar of an event.
func Anywhere() Field { return Field{slot: everywhere} }

// TypeField is the path of the event's type, which always has slot 0.
const TypeField = "type"

// node is one step of the trie of all field paths that are read.
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

// Fields are the fields of the conditions that are compiled together, and their tests. It is not
// safe for concurrent use.
type Fields struct {
	slots map[string]int   // by path
	tests map[string]*Test // by a key that equal tests share; see Share
}

// NewFields returns Fields with the event's type alone.
func NewFields() *Fields {
	f := &Fields{slots: map[string]int{}, tests: map[string]*Test{}}

	// The type must have slot 0.
	f.Field(TypeField)
	return f
}

// Field returns the field of a path as a rule writes it.
func (f *Fields) Field(path string) Field {
	path = normalPath(path)
	slot, ok := f.slots[path]
	if ok {
		return Field{Path: path, slot: slot}
	}

	// A new path gets the next slot.
	slot = len(f.slots)
	f.slots[path] = slot
	return Field{Path: path, slot: slot}
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

// Share returns the first test with the same key as t, so that equal tests of several conditions
// are one pointer and a Matcher can evaluate them once. Tests with the same key must be equal.
func (f *Fields) Share(key string, t *Test) *Test {
	if known := f.tests[key]; known != nil {
		return known
	}

	t.arrange()
	f.tests[key] = t
	return t
}
