package expr

import (
	"fmt"
	"slices"
	"strings"
)

// decisive returns the tests that decide the result: those that would have to have another
// result for the condition to have one.
func (e *Explanation) decisive() []*Explanation {
	if len(e.Parts) == 0 {
		return []*Explanation{e}
	}
	var list []*Explanation

	// Of an and that fails, the parts that fail decide; of an or, all parts; of a not, its part.
	for _, part := range e.Parts {
		if e.Op == OpNot || part.Holds == e.Holds {
			list = append(list, part.decisive()...)
		}
	}
	return list
}

// maxReasons is the maximum number of tests that Why names.
const maxReasons = 3

// Why describes in a few words the tests because of which the condition does not hold. It is
// empty if the condition holds.
func (e *Explanation) Why() string {
	if e.Holds {
		return ""
	}

	var list []string
	decisive := e.decisive()
	for i, leaf := range decisive {
		if i == maxReasons {
			list = append(list, fmt.Sprintf("and %d more", len(decisive)-i))
			break
		}
		list = append(list, leaf.sentence())
	}
	return strings.Join(list, "; ")
}

// sentence describes the result of a test. A test that holds is one that must not, as part of a not.
func (e *Explanation) sentence() string {
	position := ""
	if e.Line > 0 {
		position = fmt.Sprintf(" (%s:%d)", e.File, e.Line)
	}

	// A keyword searches the whole event, so there is no value to show.
	if e.Op == OpKeyword {
		if e.Holds {
			return fmt.Sprintf("%s is in the event%s", e.Want(), position)
		}
		return fmt.Sprintf("%s is nowhere in the event%s", e.Want(), position)
	}
	verb := "wanted"
	if e.Holds {
		verb = "excluded"
	}
	return fmt.Sprintf("%s is %s, %s is %s%s", e.Field, e.Got(), verb, e.Want(), position)
}

// Bounds of the lists and texts that are shown.
const (
	maxShown = 6
	maxRunes = 80
)

// Want describes the values that the test requires.
func (e *Explanation) Want() string {
	if len(e.Expected) == 0 && slices.Contains(e.Modifiers, "expand") {
		return "the value of a variable that has none"
	}

	mods := strings.Join(e.Modifiers, " ")
	if mods != "" {
		mods += " "
	}
	return mods + short(e.Expected)
}

// Got describes the values that the event has at the field.
func (e *Explanation) Got() string {
	switch e.Found {
	case FoundAbsent:
		return "absent"
	case FoundContainer:
		return "an object or an empty array"
	}

	got := short(e.Actual)
	if e.Other != nil {
		got += ", the other " + short(e.Other)
	}
	return got
}

// short lists values: the first few of them, and the beginning of long ones.
func short(list []Value) string {
	var out strings.Builder
	for i, value := range list {
		if i == maxShown {
			fmt.Fprintf(&out, " and %d more", len(list)-i)
			break
		}
		if i > 0 {
			out.WriteString(", ")
		}

		// Cut by characters, not bytes.
		if text := []rune(value.Text); len(text) > maxRunes {
			value.Text = string(text[:maxRunes-1]) + "…"
		}

		out.WriteString(value.String())
	}
	return out.String()
}
