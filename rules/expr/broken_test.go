package expr

import (
	"slices"
	"strings"
	"testing"
)

// faulty is an expression that panics.
type faulty struct{}

func (faulty) eval(*Matcher) bool { panic("out of luck") }
func (faulty) types() types       { return nil }

// TestBroken lets a condition panic: it is left out, and the others go on.
func TestBroken(t *testing.T) {
	fields := NewFields()
	one := fields.Share("x", &Test{Field: fields.Field("x"), Checks: []Check{Number{Text: "1", f: 1}}})
	list := []*Tree{{Leaf: one}, {Leaf: faulty{}}, {Leaf: one}}
	m := fields.Program(list, make([][]Field, len(list))).Matcher()
	for _, event := range []string{`{"type":"s","x":1}`, `{"type":"s","x":1}`, `{"x":1}`, `{"type":"` + strings.Repeat("x", 1000) + `","x":1}`} {
		if got := m.Match([]byte(event)); !slices.Equal(got, []int{0, 2}) {
			t.Errorf("%.40s: %v match", event, got)
		}
		if why := m.Broken(); len(why) != 1 || why[1] != "out of luck" {
			t.Errorf("%.40s: broken are %v", event, why)
		}
	}
}
