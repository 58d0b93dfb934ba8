package rules

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// encodings are the modifiers that convert a value to the form that it has in a log.
// They apply in the order in which a field names them.
var encodings = []string{"base64", "base64offset", "utf16", "utf16le", "utf16be", "wide", "windash"}

// encoded applies encoding modifiers to a value. It may return several forms of the value; a
// match of any of them counts.
func encoded(node *yaml.Node, names []string) ([]*yaml.Node, error) {
	// The texts are patterns until the first encoding makes plain bytes of them.
	texts, plain := []string{node.Value}, false
	for _, name := range names {
		var next []string

		// Each encoding applies to every form that the one before has produced.
		for _, text := range texts {
			switch {
			case name == "windash" && plain:
				return nil, fmt.Errorf("line %d: modifier windash must precede those that encode", node.Line)
			case name == "windash":
				next = append(next, windash(text)...)
				continue
			case !plain:
				unescaped, ok := expr.Unescape(text)
				if !ok {
					return nil, fmt.Errorf("line %d: modifier %s: %q has wildcards, which cannot be encoded",
						node.Line, name, node.Value)
				}
				text = unescaped
			}

			next = append(next, encode(name, text)...)
		}

		texts, plain = next, plain || name != "windash"
	}

	// The results are compared as texts, so they must be valid ones.
	var list []*yaml.Node
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("line %d: modifiers %s: %q becomes bytes that are not text; add base64",
				node.Line, strings.Join(names, "|"), node.Value)
		}
		if plain {
			text = expr.Escape(text)
		}
		list = append(list, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Line: node.Line, Value: text})
	}

	return list, nil
}

func encode(name, text string) []string {
	switch name {
	case "base64":
		return []string{base64.StdEncoding.EncodeToString([]byte(text))}
	case "base64offset":
		return base64Offsets(text)
	}

	// The others are UTF-16: little-endian except for utf16be, and utf16 with a byte order mark.
	var out strings.Builder
	if name == "utf16" {
		out.WriteString("\xff\xfe")
	}

	for _, unit := range utf16.Encode([]rune(text)) {
		low, high := byte(unit), byte(unit>>8)
		if name == "utf16be" {
			low, high = high, low
		}
		out.Write([]byte{low, high})
	}

	return []string{out.String()}
}

// base64Offsets returns the characters that the text becomes inside of a longer encoded text, for
// each of the three offsets. The characters at its edges depend on the surrounding text and are
// left out.
func base64Offsets(text string) []string {
	var list []string
	for offset, skip := range []int{0, 2, 3} {
		// Encode the text behind 0, 1 or 2 bytes that stand for the text before it.
		whole := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", offset) + text))
		cut := []int{0, 3, 2}[(len(text)+offset)%3]
		list = append(list, whole[skip:max(skip, len(whole)-cut)])
	}
	return list
}

// dash is a - or / that starts an option of a command line.
var dash = regexp.MustCompile(`(^|\W)[-/](\w)`)

// windash returns a text with the dash of each option in every form that Windows accepts.
func windash(text string) []string {
	// done is how many bytes of the text are in the list already.
	list, done := []string{""}, 0
	for _, at := range dash.FindAllStringSubmatchIndex(text, -1) {
		dashAt := at[4] - 1
		var longer []string

		// Each dash multiplies the forms by five.
		for _, start := range list {
			for _, form := range []string{"-", "/", "–", "—", "―"} {
				longer = append(longer, start+text[done:dashAt]+form)
			}
		}

		list, done = longer, dashAt+1
		if len(list) > maxExpanded/5 {
			break // more options than a command line has: keep the rest unchanged
		}
	}

	for i := range list {
		list[i] += text[done:]
	}

	return list
}
