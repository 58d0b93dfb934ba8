package rules

import "strings"

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

// fields hands out a slot per path while rules are compiled.
type fields struct {
	root  *node
	slots map[string]int
}

func newFields() *fields {
	f := &fields{root: &node{slot: -1}, slots: map[string]int{}}
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
