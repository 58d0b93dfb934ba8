package rules

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// faulty is an expression that panics.
type faulty struct{}

func (faulty) eval(*Matcher) bool { panic("out of luck") }
func (faulty) types() types       { return nil }

// TestBrokenRule lets a rule panic: it is left out, and the others go on.
func TestBrokenRule(t *testing.T) {
	text := ""
	for _, id := range []string{"a", "b", "c"} {
		text += "title: " + id + "\nid: " + id + "\ndetection: {s: {x: 1}, condition: s}\n---\n"
	}
	set, _ := Load(nil, fstest.MapFS{"r.yml": {Data: []byte(text)}})
	set.rules[1].match = faulty{}
	m := set.Matcher()
	for _, event := range []string{`{"type":"s","x":1}`, `{"type":"s","x":1}`, `{"x":1}`, `{"type":"` + strings.Repeat("x", 1000) + `","x":1}`} {
		if got := m.Match([]byte(event)); !slices.Equal(got, []int{0, 2}) {
			t.Errorf("%.40s: %v match", event, got)
		}
		if why := m.Broken(); len(why) != 1 || why[1] != "out of luck" {
			t.Errorf("%.40s: broken are %v", event, why)
		}
	}
}
