package rules

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// maxExpanded bounds the number of values that one value with placeholders expands to.
const maxExpanded = 10_000

// missingVars is the error of a detection that needs variables which are not set.
type missingVars []string

func (e missingVars) Error() string {
	return "set " + plural(len(e), "the variable ", "the variables ") + strings.Join(e, ", ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// placeholder is {name}, Auth0's catalog's form of what a reader must fill in: a whole
// value or the host of a URL, in rules for Auth0 only. Sigma's own form is %name% with
// the modifier expand; without that, braces and percent signs are text.
var placeholder = regexp.MustCompile(`^(?:https://)?\{([A-Za-z][A-Za-z0-9_.-]*)\}(?:/|$)`)

// pieces splits a value into texts and the names of the variables between them; there is one
// more text than there are names.
func (d *detection) pieces(node *yaml.Node, mods modifiers) (texts, names []string) {
	if mods.expand {
		return expandable(node.Value)
	}

	at := placeholder.FindStringSubmatchIndex(node.Value)
	if at == nil || mods.op == "re" || !d.doc.forAuth0() {
		return []string{node.Value}, nil
	}

	// The first group is the name.
	start, end := at[2], at[3]
	pathFollows := start == 1 && end+1 < len(node.Value) // {name}/…, which is not a URL
	if pathFollows || guid.MatchString(node.Value[start:end]) {
		return []string{node.Value}, nil
	}
	return []string{node.Value[:start-1], node.Value[end+1:]}, []string{node.Value[start:end]}
}

// expandable splits a value at its placeholders %name%. An escaped \% is a plain percent
// sign, and so is a percent sign without a second one after it.
func expandable(value string) (texts, names []string) {
	var text []byte
	for i := 0; i < len(value); i++ {
		// Backslashes escape percent signs and themselves.
		switch {
		case value[i] == '\\' && i+1 < len(value) && value[i+1] == '%':
			text = append(text, '%')
			i++
			continue
		case value[i] == '\\' && i+1 < len(value) && value[i+1] == '\\':
			text = append(text, `\\`...)
			i++
			continue
		case value[i] == '%':
			if name, _, ok := strings.Cut(value[i+1:], "%"); ok && name != "" && !strings.HasSuffix(name, `\`) {
				texts, names = append(texts, string(text)), append(names, name)
				text = nil
				i += len(name) + 1
				continue
			}
		}

		text = append(text, value[i])
	}

	return append(texts, string(text)), names
}

// values replaces the placeholders of one value by their variables, which can result in several
// values, or in none.
func (d *detection) values(node *yaml.Node, mods modifiers) ([]*yaml.Node, error) {
	// {name} without quotes is a YAML map.
	unquoted := node.Kind == yaml.MappingNode && len(node.Content) == 2 && node.Content[1].Tag == "!!null"
	switch {
	case unquoted && !mods.expand && d.doc.forAuth0():
		node = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Line: node.Line,
			Value: "{" + node.Content[0].Value + "}"}
	case node.Kind != yaml.ScalarNode:
		return nil, fmt.Errorf("line %d: a value must be a scalar", node.Line)
	case node.Tag != "!!str":
		return []*yaml.Node{node}, nil
	}

	// Each placeholder multiplies the texts so far by the values of its variable.
	pieces, names := d.pieces(node, mods)
	texts := []string{pieces[0]}
	for i, name := range names {
		replacements, ok := d.vars[name]
		if !ok {
			d.missing = append(d.missing, name)
			continue
		}
		if len(texts)*len(replacements) > maxExpanded {
			return nil, fmt.Errorf("line %d: %q expands to more than %d values", node.Line, node.Value, maxExpanded)
		}

		var longer []string
		for _, text := range texts {
			for _, replacement := range replacements {
				longer = append(longer, text+escape(replacement, mods)+pieces[i+1])
			}
		}

		texts = longer
	}

	// Each text keeps the line of the value, for errors.
	list := make([]*yaml.Node, len(texts))
	for i, text := range texts {
		list[i] = &yaml.Node{Kind: yaml.ScalarNode, Tag: node.Tag, Line: node.Line, Value: text}
	}

	return list, nil
}

// escape quotes a variable's value so that it is taken literally where it is inserted.
func escape(s string, mods modifiers) string {
	switch mods.op {
	case "re":
		return regexp.QuoteMeta(s)
	case "cidr":
		return s
	}
	return expr.Escape(s)
}
