package rules

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// encodings are the modifiers that turn a value into what it looks like in a log.
// They apply in the order in which a field names them.
var encodings = []string{"base64", "base64offset", "utf16", "utf16le", "utf16be", "wide", "windash"}

// encoded applies the modifiers of encodings to a value. Several results stand
// for one value: any of them will do.
func encoded(n *yaml.Node, names []string) ([]*yaml.Node, error) {
	texts, plain := []string{n.Value}, false // plain: bytes, without wildcards and escapes
	for _, name := range names {
		var next []string
		for _, text := range texts {
			switch {
			case name == "windash" && plain:
				return nil, fmt.Errorf("line %d: modifier windash comes before those that encode", n.Line)
			case name == "windash":
				next = append(next, windash(text)...)
				continue
			case !plain:
				runes := parsePattern(text)
				if slices.Contains(runes, wildMany) || slices.Contains(runes, wildOne) {
					return nil, fmt.Errorf("line %d: modifier %s: %q has wildcards, which cannot be encoded", n.Line, name, n.Value)
				}
				text = string(runes)
			}
			next = append(next, encode(name, text)...)
		}
		texts, plain = next, plain || name != "windash"
	}
	var list []*yaml.Node
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("line %d: modifiers %s: %q becomes bytes that are no text; add base64", n.Line, strings.Join(names, "|"), n.Value)
		}
		if plain {
			text = escape(text, modifiers{})
		}
		list = append(list, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Line: n.Line, Value: text})
	}
	return list, nil
}

func encode(name, text string) []string {
	switch name {
	case "base64":
		return []string{base64.StdEncoding.EncodeToString([]byte(text))}
	case "base64offset":
		// What stands before and after in the encoded text changes the characters at
		// its edges; they are left out.
		var list []string
		for offset, skip := range []int{0, 2, 3} {
			whole := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", offset) + text))
			cut := []int{0, 3, 2}[(len(text)+offset)%3]
			list = append(list, whole[skip:max(skip, len(whole)-cut)])
		}
		return list
	}
	var b strings.Builder
	if name == "utf16" {
		b.WriteString("\xff\xfe")
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		low, high := byte(unit), byte(unit>>8)
		if name == "utf16be" {
			low, high = high, low
		}
		b.Write([]byte{low, high})
	}
	return []string{b.String()}
}

// dash is a - or / that begins an option of a command line.
var dash = regexp.MustCompile(`(^|\W)[-/](\w)`)

// windash is a text with the dash of each option in every form that Windows takes.
func windash(text string) []string {
	list, done := []string{""}, 0
	for _, at := range dash.FindAllStringSubmatchIndex(text, -1) {
		place := at[4] - 1
		var longer []string
		for _, begun := range list {
			for _, with := range []string{"-", "/", "–", "—", "―"} {
				longer = append(longer, begun+text[done:place]+with)
			}
		}
		list, done = longer, place+1
		if len(list) > maxExpanded/5 {
			break // more dashes than any command line has: the rest stands as it is
		}
	}
	for i := range list {
		list[i] += text[done:]
	}
	return list
}
