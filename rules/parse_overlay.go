package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readOverlay parses one overlay file:
//
//	optional: true            # its rules may be absent
//	vars: {name: [value]}     # for all rules
//	rules:
//	    ID:
//	        enabled: false    # or any of the following
//	        reason: Why.
//	        replaced_by: ID
//	        level: high
//	        vars: {name: value}
//	        correlation: {…}  # instead of the rule's own, or on top of a detection
//	        alert: {…}        # as x-tenantwatch-alert
func readOverlay(file string, data []byte) (list []*overlay, vars Vars, err error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, nil, fmt.Errorf("%s: %v", file, err)
	}
	if len(root.Content) == 0 {
		return nil, nil, nil
	}
	if line := aliasLine(&root); line > 0 {
		return nil, nil, fmt.Errorf("%s:%d: YAML aliases are not supported", file, line)
	}
	entries, err := mapping(root.Content[0])
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}

	fail := func(n *yaml.Node, key string, err error) error {
		return fmt.Errorf("%s:%d: %s: %w", file, n.Line, key, err)
	}

	// Overlays are collected first, since optional may come after the rules.
	optional := false
	for _, item := range entries {
		switch item.key {
		case "optional":
			err = item.value.Decode(&optional)
		case "vars":
			vars, err = readVars(item.value)
		case "rules":
			var rules []entry
			rules, err = mapping(item.value)
			for _, rule := range rules {
				overlay, err := readOverlayRule(rule)
				if err != nil {
					return nil, nil, fail(rule.value, item.key+"."+rule.key, err)
				}
				overlay.file = file
				list = append(list, overlay)
			}
		default:
			err = errors.New("unknown key")
		}

		if err != nil {
			return nil, nil, fail(item.value, item.key, err)
		}
	}

	// optional applies to the whole file.
	for _, overlay := range list {
		overlay.optional = optional
	}

	return list, vars, nil
}

// readOverlayRule parses the changes to one rule.
func readOverlayRule(r entry) (*overlay, error) {
	entries, err := mapping(r.value)
	if err != nil {
		return nil, err
	}

	change := &overlay{id: r.key, line: r.line}
	for _, entry := range entries {
		switch entry.key {
		case "enabled":
			on := true
			err = entry.value.Decode(&on)
			change.off = !on
		case "reason":
			change.reason = strings.Join(strings.Fields(entry.value.Value), " ")
		case "level":
			if change.level = entry.value.Value; !slices.Contains(levelNames[:], change.level) {
				err = fmt.Errorf("unknown level %q", change.level)
			}
		case "replaced_by":
			change.replacedBy = entry.value.Value
		case "vars":
			change.vars, err = readVars(entry.value)
		case "correlation":
			change.correlation = entry.value
			_, err = mapping(entry.value)
		case "alert":
			change.alert = entry.value
		default:
			err = errors.New("unknown key")
		}

		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.key, err)
		}
	}

	// A later reader will ask why the rule is off.
	if (change.off || change.replacedBy != "") && change.reason == "" {
		return nil, errors.New("a rule that does not run needs a reason")
	}
	return change, nil
}

func readVars(node *yaml.Node) (Vars, error) {
	entries, err := mapping(node)
	if err != nil {
		return nil, err
	}
	vars := Vars{}
	for _, entry := range entries {
		if vars[entry.key], err = texts(entry.value); err != nil {
			return nil, fmt.Errorf("%s: %w", entry.key, err)
		}
	}
	return vars, nil
}
